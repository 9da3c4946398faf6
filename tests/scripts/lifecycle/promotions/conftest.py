"""A registry with three versions beside a service that says of itself what a test wants."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from scripts.lifecycle import retry
from scripts.lifecycle.counters import ServiceCounts
from scripts.lifecycle.signals import SIGNALS
from tests.scripts.lifecycle.test_promote import aliases
from tests.support.fake_service import FakeService, Hook, Run
from tests.support.promotions import NAME, Registry


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Three good versions."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.5, 0.1)


@pytest.fixture
def registry(versions: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Version 1 is in production, there is no challenger, and the scripts find the registry."""
    client = mlflow.MlflowClient(versions.uri, versions.uri)
    client.delete_registered_model_alias(NAME, "challenger")
    versions.promote("1")
    for name, value in (
        ("MLFLOW_TRACKING_URI", versions.uri),
        ("SERVING_MODEL_NAME", NAME),
        ("SERVING_REGISTRY_TIMEOUT_SECONDS", "3"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ServiceCounts, "look_seconds", 0.05)
    monkeypatch.setattr(retry, "PUT_BACK_SECONDS", 1)
    monkeypatch.setattr(retry, "PAUSE_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    return versions


@pytest.fixture
def service(registry: Registry) -> Iterator[FakeService]:
    with FakeService(lambda: aliases(registry)).running() as running:
        yield running


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals that a promotion leaves ignored are not for the next test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script; returns its exit code and what it printed."""

    def call(script: Any, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = script.main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Lets something happen right after the registry has carried out a request, which is told the how many-th it was."""

    def hook(method: str, happens: Callable[[int], None]) -> None:
        original, n_calls = getattr(mlflow.MlflowClient, method), 0

        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal n_calls
            n_calls += 1
            result = original(*arguments, **more)
            happens(n_calls)
            return result

        monkeypatch.setattr(mlflow.MlflowClient, method, call)

    return hook
