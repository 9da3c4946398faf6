"""What every test may need of its surroundings: paths, variables, ports, and waiting."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TELCO = ROOT.parent / "shared" / "data" / "telco-customer-churn.csv"

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
