"""Shows a promotion, a rejection and a rollback of a service under load, on the terminal.

Takes about a minute, and leaves nothing behind. Exit code 0 if no request failed.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle.services import look  # noqa: E402  # needs the line above

NAME = "churn"
N_CLIENTS = 4
SECONDS = 120
"""Timeout of each step."""
COLUMNS = 100
"""Maximum width of a line."""

BREAK = """
import sys
import mlflow
import numpy as np
model = mlflow.sklearn.load_model(f"models:/{sys.argv[1]}/1")
model[-1].coef_[:] = np.nan
mlflow.sklearn.log_model(
    model, name="model", registered_model_name=sys.argv[1], pip_requirements=["scikit-learn"],
    signature=mlflow.models.get_model_info(f"models:/{sys.argv[1]}/1").signature,
    code_paths=["preprocessing.py"],
    skops_trusted_types=["numpy.dtype", "preprocessing.preprocess"],
)
"""
"""Registers a version whose training diverged: every answer is NaN."""


class Load:
    """Clients that send requests without pause and count the answers."""

    def __init__(self, port: int, body: bytes) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._port, self._body = port, body
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._fire, daemon=True) for _ in range(N_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _fire(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v1/predict", self._body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status == 200:
                    self.answers[answer["model"]["version"]] += 1
                else:
                    self.failures[f"{response.status} {answer['error']['code']}"] += 1
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                self.failures[type(error).__name__] += 1
                connection.close()

    @property
    def failed(self) -> str:
        """How many failed, and how."""
        how = ", ".join(f"{name}: {n}" for name, n in self.failures.items())
        return f"{self.failures.total()} failed" + (f" ({how})" if how else "")

    def end(self) -> None:
        """Stops, and waits for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def main() -> int:
    """Runs the demonstration; returns the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    say("A promotion, a rejection and a rollback under load; takes about a minute, leaves nothing behind")
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        return show(Path(folder), environment_in(Path(folder)))


def environment_in(folder: Path) -> dict[str, str]:
    """Returns the environment of a service and a registry in a folder."""
    return os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "SERVING_MODEL_NAME": NAME,
        "BENTOML_HOME": f"{folder}/bentoml",
        "SERVING_SYNC_SECONDS": "1",
        "SERVING_WORKERS": "2",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(ROOT),
    }


def show(folder: Path, environment: dict[str, str]) -> int:
    """Runs the steps; returns the exit code."""

    def call(*arguments: str, to_lines: Callable[[str], list[str]]) -> int:
        """Runs a script and prints its output at once, each line as `to_lines` returns it."""
        has_spoken = False
        log = folder / "script.log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(  # noqa: S603  # our own words
                [sys.executable, *arguments],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            for line in process.stdout or ():
                has_spoken = True
                for part in to_lines(line.rstrip()):
                    say(f"    {part}")
        if process.returncode and not has_spoken:
            say(log.read_text().strip())
        return process.returncode

    (folder / "preprocessing.py").write_bytes((ROOT / "preprocessing.py").read_bytes())
    step("Train versions 1 and 2, promote version 1")
    train = str(ROOT / "scripts/train.py")
    call(train, "--promote", "--estimator", "linear", to_lines=outcome_of_training)
    call(train, "--seed", "1", "--estimator", "linear", to_lines=outcome_of_training)
    call("-c", BREAK, NAME, to_lines=outcome_of_training)
    with serving(folder, environment) as port:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        load = Load(port, example_body(url))
        step(f"Serve it with 2 workers, under the load of {N_CLIENTS} clients")
        time.sleep(2)
        for text, expected, arguments in (
            ("Promote version 2", 0, ("promote.py", "2", "--watch", "3")),
            ("Promote version 3, which answers NaN", 1, ("promote.py", "3")),
            ("Roll back version 2", 0, ("rollback.py", "--why", "demonstration")),
        ):
            step(text)
            name, *rest = arguments
            rest += ["--url", url, "--timeout", str(SECONDS)]
            say(f"    $ {name} {' '.join(rest)}")
            code = call(str(ROOT / "scripts" / name), *rest, to_lines=wrap)
            if code != expected:
                load.failures[name] += 1
                say(f"    expected exit code {expected}, got {code}")
            tell(load)
        load.end()
        step("Ask who moved the alias, and why")
        say("    $ history.py")
        call(str(ROOT / "scripts/history.py"), to_lines=cut)
    step(f"{sum(load.answers.values()):,} requests answered, {load.failed}")
    return 1 if load.failures else 0


def outcome_of_training(line: str) -> list[str]:
    """Returns the line if it tells that a model was registered or promoted."""
    return [line] if line.startswith(("registered:", "promoted:")) else []


def wrap(line: str) -> list[str]:
    """Returns a sentence in lines that fit."""
    return textwrap.wrap(line, COLUMNS - 4, subsequent_indent="  ", break_on_hyphens=False)


def cut(line: str) -> list[str]:
    """Returns a table's row, cut to fit."""
    return [line if len(line) <= COLUMNS - 4 else f"{line[: COLUMNS - 5]}…"]


def tell(load: Load) -> None:
    """Prints what the clients got so far."""
    by_version = ", ".join(f"{n:,} by version {version}" for version, n in sorted(load.answers.items()))
    say(f"    answered so far: {by_version}; {load.failed}")


def step(text: str) -> None:
    """Prints a headline."""
    say(f"\n== {text}")


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


@contextlib.contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """Runs a service; yields its port."""
    port = free_port()
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # our own words
            [
                *(
                    sys.executable,
                    "-m",
                    "bentoml",
                    "serve",
                    "service:ModelServer",
                    "--working-dir",
                    str(ROOT),
                ),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ready(url: str) -> None:
    """Waits until a model answers.

    Raises:
        SystemExit: none does.
    """
    give_up = time.monotonic() + SECONDS
    while "champion" not in look(url).versions:
        if time.monotonic() > give_up:
            sys.exit(f"demo_promotion.py: no model answers after {SECONDS} s: {look(url).trouble}")
        time.sleep(0.2)


def example_body(url: str) -> bytes:
    """Returns a request that the service's own documentation shows."""
    from scripts.lifecycle.services import fetch

    document: dict[str, Any] = json.loads(fetch(url, "/docs.json"))
    content = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    example = content.get("example") or next(iter(content["examples"].values()))["value"]
    return json.dumps(example).encode()


if __name__ == "__main__":
    sys.exit(main())
