"""Shows promotions on the terminal: a service under load, a good version, a bad one, and the way back.

Takes about a minute. Everything is in a folder of its own, and gone afterwards. Exit code 0 when no request failed.
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
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle.services import look  # noqa: E402  # needs the line above

NAME = "churn"
N_CLIENTS = 4
SECONDS = 120
"""In which each step has to be done."""

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
    """Clients that fire all the time and count what they get."""

    def __init__(self, port: int, body: bytes) -> None:
        self.answers: Counter[str] = Counter()
        self.failed = 0
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
                    self.failed += 1
            except (OSError, ValueError, KeyError, http.client.HTTPException):
                self.failed += 1
                connection.close()

    def end(self) -> None:
        """Stops, and waits for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def main() -> int:
    """Shows it; returns the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    say("promotions, a refusal and a rollback under load: takes about a minute, and leaves nothing behind")
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "SERVING_MODEL_NAME": NAME,
            "BENTOML_HOME": f"{folder}/bentoml",
            "SERVING_SYNC_SECONDS": "1",
            "SERVING_WORKERS": "2",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(ROOT),
        }
        return show(Path(folder), environment)


def show(folder: Path, environment: dict[str, str]) -> int:
    """Goes through the steps; returns the exit code."""

    def call(*arguments: str) -> int:
        """Runs a script; shows what it prints, but for what MLflow does."""
        done = subprocess.run(  # noqa: S603  # our own words
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        for line in (done.stdout if arguments[0] != "-c" else "").splitlines():
            say(f"    {line}")
        if done.returncode and not done.stdout:
            say(done.stderr.strip())
        return done.returncode

    (folder / "preprocessing.py").write_bytes((ROOT / "preprocessing.py").read_bytes())
    step("two versions are trained and registered, and version 1 is promoted")
    call(str(ROOT / "scripts/train.py"), "--promote", "--estimator", "linear")
    call(str(ROOT / "scripts/train.py"), "--seed", "1", "--estimator", "linear")
    call("-c", BREAK, NAME)
    with serving(folder, environment) as port:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        load = Load(port, example_body(url))
        step(f"a service with 2 workers answers, {N_CLIENTS} clients fire all the time")
        time.sleep(2)
        for text, expected, arguments in (
            ("version 2 is promoted", 0, ("promote.py", "2", "--watch", "3")),
            ("version 3, whose answers are NaN, is promoted, and refused", 1, ("promote.py", "3")),
            ("version 2 is rolled back", 0, ("rollback.py", "--why", "as a demonstration")),
        ):
            step(text)
            name, *rest = arguments
            code = call(str(ROOT / "scripts" / name), *rest, "--url", url, "--timeout", str(SECONDS))
            if code != expected:
                load.failed += 1
                say(f"    this should have ended with {expected}, and ended with {code}")
            tell(load)
        load.end()
        step("that is recorded")
        call(str(ROOT / "scripts/history.py"))
    step(f"requests: {sum(load.answers.values()):,} answered, {load.failed} failed")
    return 1 if load.failed else 0


def tell(load: Load) -> None:
    """Says what the clients got so far."""
    by_version = ", ".join(f"version {version}: {n:,}" for version, n in sorted(load.answers.items()))
    say(f"    answers so far: {by_version}; failed: {load.failed}")


def step(text: str) -> None:
    """Prints a headline."""
    say(f"\n== {text}")


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


@contextlib.contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """Runs a service; yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
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
