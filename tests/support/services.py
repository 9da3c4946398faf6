"""A real `bentoml serve` for tests."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.environment import ROOT, clean_environment, free_port, wait_until
from tests.support.prepared import take_prepared
from tests.support.processes import run_directory, worker_reports


class Service:
    """A real `bentoml serve` of this checkout."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, log_file: Path, n_workers: int = 1
    ) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.registry = ""
        self._log_file = log_file
        self._n_workers = n_workers
        self._run_directory: Path | None = None
        self.http = httpx.Client(base_url=self.url, timeout=60)

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log_file.read_text(errors="replace")

    def answers(self, path: str, status: int) -> httpx.Response | None:
        """The response, where it has the status."""
        try:
            response = self.http.get(path)
        except httpx.TransportError:
            return None
        return response if response.status_code == status else None

    def served_by_workers(self) -> list[str]:
        """The prepared models that answer in the workers, by their tags: of each worker that has one."""
        self._run_directory = self._run_directory or run_directory(self.process.pid)
        reports = worker_reports(self._run_directory) if self._run_directory else []
        return [report["serving"] for report in reports if report["serving"]]

    def every_worker_serves(self, prefix: str = "") -> bool:
        """Whether each of them, by its own word, answers with a model whose tag begins so."""
        served = self.served_by_workers()
        return len(served) >= self._n_workers and all(tag.startswith(prefix) for tag in served)

    def wait_ready(self, seconds: float = 120) -> "Service":
        """Waits until a model answers, in every worker: `/readyz` is answered by one of them."""
        try:
            wait_until(lambda: self.answers("/readyz", 200), seconds, "/readyz says 200")
            wait_until(self.every_worker_serves, seconds, "every worker has a model")
        except BaseException:
            print(self.log)
            raise
        return self

    def wait_reason(self, part: str, seconds: float = 120) -> str:
        """Waits until /readyz gives a reason with this part in it; returns the whole reason."""

        def reason() -> str:
            response = self.answers("/readyz", 503)
            message = response.json()["error"]["message"] if response else ""
            return message if part in message else ""

        try:
            return str(wait_until(reason, seconds, f"/readyz says {part!r}"))
        except BaseException:
            print(self.log)
            raise

    def ask_anew(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer through a connection of its own, for which the kernel picks a worker."""
        # Certificates would be read for each, which takes longer than what is asked.
        with httpx.Client(base_url=self.url, timeout=60, verify=False) as client:
            return client.request(method, path, **more)

    def predict(self, instances: Any, **more: Any) -> dict[str, Any]:
        """The answer to `POST /v1/predict`."""
        response = self.http.post("/v1/predict", json={"instances": instances, **more})
        assert response.status_code == 200, response.text
        return dict(response.json())


def _start(
    folder: Path, env: dict[str, str], bento: Path | None, python: list[str]
) -> tuple[subprocess.Popen[bytes], int, Path]:
    port = free_port()
    log_file = folder / f"service-{port}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                *(*python, "-m", "bentoml", "serve", *([str(bento)] if bento else [])),
                *("--port", str(port), "--host", "127.0.0.1"),
            ],
            cwd=bento or ROOT,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, port, log_file


def _wait_alive(process: subprocess.Popen[bytes], port: int) -> None:
    """Waits until it answers, or has ended."""
    while process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5).status_code == 200:
                return
        time.sleep(0.05)


@contextlib.contextmanager
def running_service(
    folder: Path,
    bento: Path | None = None,
    *,
    is_cold: bool = False,
    behind: str = "",
    python: list[str] | None = None,
    **environment: str,
) -> Iterator[Service]:
    """Runs `bentoml serve` with a model store in `folder`; stops it as Kubernetes would.

    Args:
        folder: for its model store and its log.
        bento: what is served, instead of this checkout.
        is_cold: whether it prepares every model itself, also those that another service has prepared before.
        python: the command that runs Python, if it is not the one that runs the tests.
        behind: the registry of SQLite that a tracking server answers from, if one is asked.
        environment: more of its settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    env = (
        clean_environment()
        | {
            "BENTOML_HOME": str(folder / "bentoml"),
            "SERVING_SYNC_SECONDS": "1",
            # No test waits for a load balancer that notices its end.
            "SERVING_DRAIN_SECONDS": "0",
            # Who wrote the tests' models is known.
            "SERVING_ALLOW_PICKLE": "true",
        }
        | environment
    )
    home = Path(env["BENTOML_HOME"])
    if not is_cold:
        take_prepared(home, behind or env.get("MLFLOW_TRACKING_URI", ""))
    process, port, log_file = _start(folder, env, bento, python or [sys.executable])
    _wait_alive(process, port)
    service = Service(process, port, log_file, int(env.get("SERVING_WORKERS", "1")))
    try:
        yield service
    finally:
        service.http.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
