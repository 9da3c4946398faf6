"""The real parts that the tests share: an MLflow store with models in it, and running services."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent
TELCO = ROOT.parent / "shared" / "data" / "telco-customer-churn.csv"

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
sys.path.insert(0, str(ROOT))

from tests.support.processes import run_directory, worker_reports  # noqa: E402  # from this checkout

OURS = ("SERVING_", "MLFLOW_TRACKING", "MLFLOW_EXPERIMENT", "PROMETHEUS_")
"""Variables that say what to serve from where; MLflow sets some of them in passing."""


def clean_environment() -> dict[str, str]:
    """This process' environment without what other tests left in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


@contextlib.contextmanager
def tracking(uri: str) -> Iterator[None]:
    """MLflow's functions use the registry meanwhile, and none of the session's afterwards."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        for name in [name for name in os.environ if name.startswith(OURS)]:
            del os.environ[name]


def free_port() -> int:
    """Returns a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Makes a certificate for localhost that nobody trusts yet; returns it and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def wait_until(claim: Callable[[], Any], seconds: float, what: str) -> Any:
    """Returns the first true value of the claim; fails the test where there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = claim()
        if value:
            return value
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} s: {what}")


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
    folder: Path, env: dict[str, str], bento: Path | None
) -> tuple[subprocess.Popen[bytes], int, Path]:
    port = free_port()
    log_file = folder / f"service-{port}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bentoml", "serve", *([str(bento)] if bento else [])),
                *("--port", str(port), "--host", "127.0.0.1"),
            ],
            cwd=bento or ROOT,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, port, log_file


def _is_alive(process: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until it answers, or has ended. That somebody listens on the port is not enough: see below."""
    while process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5).status_code == 200:
                return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def running_service(folder: Path, bento: Path | None = None, **environment: str) -> Iterator[Service]:
    """Runs `bentoml serve` with a model store in `folder`, of this checkout or of a Bento; stops it as Kubernetes would."""
    folder.mkdir(parents=True, exist_ok=True)
    env = (
        clean_environment()
        | {
            "BENTOML_HOME": str(folder / "bentoml"),
            "SERVING_SYNC_SECONDS": "1",
            # Who wrote the tests' models is known.
            "SERVING_ALLOW_PICKLE": "true",
        }
        | environment
    )
    # BentoML looks for free ports for its process manager and binds them a little later: where another
    # process was quicker, or where one of them is the port that it was given, it gives up, and starting again
    # is the remedy.
    for _ in range(3):
        process, port, log_file = _start(folder, env, bento)
        if _is_alive(process, port):
            break
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


@pytest.fixture(scope="session")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a real MLflow store that holds the models of `tests/support/models.py`."""
    from tests.support.models import MODELS, fill_registry

    return fill_registry(tmp_path_factory.mktemp("registry"), MODELS)


@pytest.fixture
def registry(registry_uri: str) -> Iterator[str]:
    """The same, and MLflow's functions use it during the test."""
    with tracking(registry_uri):
        yield registry_uri


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the BentoML model store of the session's services."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services that end with the test."""
    with contextlib.ExitStack() as stack:
        count = iter(range(100))

        def start(**environment: str) -> Service:
            return stack.enter_context(running_service(tmp_path / f"service-{next(count)}", **environment))

        yield start
