"""The sync process: one per service, it gets a model ready and tells the workers which.

    bentoml serve (parent) ── starts ──▶ sync ── starts ──▶ prepare (one attempt, then gone)
                                          │ writes
                                          ▼
                              <run directory>/outcome.json  ◀── each worker looks here

It stays small: mlflow, scikit-learn and pandas are in memory only while an attempt runs, in the process
of the attempt. A prepared model that somebody deletes from the store is prepared again. The process ends
with the parent, whose end closes its standard input.
"""

import logging
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from serving.libraries import library_versions
from serving.logs import configure_logging
from serving.prepare.lookup import look_up
from serving.prepared import find_prepared, is_prepared
from serving.settings import Settings, load_settings

log = logging.getLogger("serving.sync")


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of the last attempt: a tag in the model store, or why there is none."""

    tag: str | None = None
    code: str = ""
    message: str = ""


def outcome_path(run_directory: Path) -> Path:
    """Returns the file that the workers watch."""
    return run_directory / "outcome.json"


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Writes the outcome at once or not at all."""
    aside = file.with_suffix(f".{os.getpid()}.tmp")
    aside.write_bytes(msgspec.json.encode(outcome))
    aside.replace(file)


def read_outcome(file: Path) -> Outcome | None:
    """Returns the outcome; None where there is none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None


def synchronize(run_directory: Path, settings: Settings, stop: threading.Event) -> None:
    """Tries every `sync_seconds` until a model is ready, and again when it is gone from the store.

    Each new reason is logged once.
    """
    attempt_file = run_directory / "attempt.json"
    outcome = read_outcome(outcome_path(run_directory))
    said = None
    while not stop.is_set():
        if outcome is None or outcome.tag is None or not is_prepared(outcome.tag):
            if outcome is not None and outcome.tag is not None:
                log.warning("%s is gone from the model store; preparing it again", outcome.tag)
            outcome = look(settings) or attempt(attempt_file, settings, stop)
            if stop.is_set():
                return
            write_outcome(outcome_path(run_directory), outcome)
        if outcome.message != said and outcome.tag is None:
            log.error("not ready: %s (trying again every %g s)", outcome.message, settings.sync_seconds)
        said = outcome.message
        # Jitter keeps many pods from asking the registry in step.
        stop.wait(settings.sync_seconds * random.uniform(0.8, 1.2))  # noqa: S311  # no secret depends on it


def look(settings: Settings) -> Outcome | None:
    """Returns the outcome where the version to be served is prepared already; None where it is not plain."""
    resolved = look_up(settings)
    if resolved is None:
        return None
    prepared = find_prepared(resolved.name, resolved.version, resolved.source_key, library_versions())
    if prepared is None:
        return None
    log.info(
        "registry: %s version %s (%s), prepared already", resolved.name, resolved.version, resolved.because
    )
    return Outcome(tag=prepared.tag)


def attempt(file: Path, settings: Settings, stop: threading.Event) -> Outcome:
    """Runs one attempt in a process of its own; however that ends, an outcome comes back."""
    file.unlink(missing_ok=True)
    try:
        process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-m", "serving.prepare", str(file)], stdin=subprocess.DEVNULL
        )
    except OSError as error:
        return Outcome(code="internal_error", message=f"no process can be started: {error.strerror}")
    waited = 0.0
    while process.poll() is None:
        if stop.wait(0.1) or waited > settings.prepare_timeout_seconds:
            process.kill()
            process.wait()
            return Outcome(
                code="prepare_failed",
                message=f"preparing took longer than {settings.prepare_timeout_seconds:g} s "
                "(SERVING_PREPARE_TIMEOUT_SECONDS)",
            )
        waited += 0.1
    outcome = read_outcome(file)
    if outcome is not None:
        return outcome
    status = process.returncode
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return Outcome(code="prepare_failed", message=f"the preparing process {how}; the log may say more")


def start_sync(run_directory: Path) -> threading.Thread:
    """Starts the sync process, and again if it is killed; it ends with this process.

    Returns:
        The thread that watches over it, a daemon.
    """

    def watch() -> None:
        while True:
            process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-m", "serving.prepare.sync", str(run_directory)],
                stdin=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": _python_path()},
                # Ctrl-C goes to the whole foreground group; this process is ended by its parent's end alone.
                start_new_session=True,
            )
            # Not by the exit status: BentoML's process manager reaps every child of the parent itself.
            process.wait()
            threading.Event().wait(1)

    thread = threading.Thread(target=watch, name="sync", daemon=True)
    thread.start()
    return thread


def _python_path() -> str:
    """Where `serving` is, first: the working folder stays the user's, relative registry paths are theirs."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])


def main(run_directory: Path) -> None:
    """Runs until the parent is gone."""
    configure_logging()
    stop = threading.Event()

    def wait_for_parent() -> None:
        # Not through sys.stdin, whose lock a thread would hold while the interpreter ends.
        while os.read(0, 1024):
            pass
        stop.set()

    threading.Thread(target=wait_for_parent, daemon=True).start()
    synchronize(run_directory, load_settings(), stop)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
