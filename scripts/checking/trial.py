"""Prepares and loads a model as a service does, in temporary processes and a temporary model store."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from scripts.checking.loading import Loaded
from serving.errors import ModelRefused, from_code
from serving.model.libraries import library_versions
from serving.model.prepared import STORE_VARIABLE, Manifest, Prepared, find_prepared
from serving.prepare.checks.trust import check_admission
from serving.prepare.registry.resolution import Resolved
from serving.prepare.request import PrepareRequest
from serving.prepare.sync.attempts import attempt
from serving.process.sandbox import WRITABLE, without_secrets
from serving.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent


class LogLine(msgspec.Struct):
    """A line of the preparing process' log. Source: `serving.process.logs.JsonFormatter`."""

    level: str
    message: str


class Trial(NamedTuple):
    """A temporary model store, and what is done in it."""

    home: Path
    settings: Settings
    log: IO[bytes]

    def prepare(self, model: Resolved, champion: Prepared | None) -> Prepared:
        """Returns the prepared model.

        Raises:
            PrepareError: it is refused, or cannot be prepared.
        """
        if champion is not None:
            self._link(champion)
        request = PrepareRequest(model, champion.tag if champion else None)
        outcome = attempt(
            self.home / "outcome.json",
            request,
            self.settings,
            threading.Event(),
            environment=self._environment,
            log=self.log,
        )
        if outcome.tag is None:
            raise from_code(outcome.code, outcome.message.removeprefix(f"{model.title} is refused: "))
        name, _, version = outcome.tag.partition(":")
        folder = self.home / "models" / name / version
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        return Prepared(folder, manifest)

    def find_or_prepare(self, model: Resolved) -> Prepared:
        """Returns the prepared model: a service's on this machine, if there is one.

        Raises:
            PrepareError: it cannot be prepared, or these settings do not allow it.
        """
        found = find_prepared(model.name, model.version, model.source_key, library_versions())
        if found is None:
            return self.prepare(model, None)
        check_admission(found.manifest, self.settings)
        return found

    def load(self, prepared: Prepared) -> Loaded:
        """Loads a prepared model as a worker does, and measures its calls.

        Raises:
            ModelRefused: it cannot be loaded.
        """
        run_directory = self.home / "run"
        for name in WRITABLE:
            (run_directory / name).mkdir(parents=True, exist_ok=True)
        done = subprocess.run(  # noqa: S603  # our own module
            [sys.executable, "-m", "scripts.checking.loading", str(prepared.folder), str(run_directory)],
            cwd=ROOT,
            env=without_secrets(dict(os.environ)) | self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            check=False,
        )
        try:
            loaded = msgspec.json.decode(done.stdout.splitlines()[-1], type=Loaded)
        except (IndexError, msgspec.MsgspecError):
            raise ModelRefused(f"the process that loaded it ended with status {done.returncode}") from None
        if loaded.error:
            raise ModelRefused(loaded.error)
        return loaded

    def read_log(self) -> str:
        """Returns the output of the processes."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    @property
    def warnings(self) -> list[str]:
        """The warnings in the log so far."""
        found = []
        for line in self.read_log().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                parsed = msgspec.json.decode(line, type=LogLine)
                if parsed.level == "warning":
                    found.append(parsed.message)
        return list(dict.fromkeys(found))

    @property
    def _environment(self) -> dict[str, str]:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "BENTOML_HOME": str(self.home),
            STORE_VARIABLE: "",
            "PYTHONPATH": os.pathsep.join(paths),
            "SERVING_LOG_FORMAT": "json",
        }

    def _link(self, champion: Prepared) -> None:
        here = self.home / "models" / champion.folder.parent.name / champion.folder.name
        if not here.exists():
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(champion.folder)


@contextlib.contextmanager
def trial(settings: Settings) -> Iterator[Trial]:
    """Yields a trial, which leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="check-") as folder, tempfile.TemporaryFile() as log:
        yield Trial(Path(folder), settings, log)
