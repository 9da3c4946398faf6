"""Scripts run in this process, with a registry of the test's own beside a service that says what the test wants."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from scripts.lifecycle import polling, prometheus, quality, retry
from scripts.lifecycle.counters import ServiceCounts
from scripts.lifecycle.signals import SIGNALS
from tests.support.fake_service import FakeService, Hook, Run
from tests.support.promotions import NAME, Registry


@pytest.fixture(autouse=True)
def short_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts look often and give up soon, and leave what they write in the test's folder."""
    monkeypatch.setattr(ServiceCounts, "look_seconds", 0.05)
    monkeypatch.setattr(prometheus.PrometheusCounts, "look_seconds", 0.05)
    monkeypatch.setattr(prometheus, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(polling, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(quality, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(retry, "PUT_BACK_SECONDS", 1)
    monkeypatch.setattr(retry, "PAUSE_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals that a promotion leaves ignored are not for the next test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Three good versions, the first of them in production."""
    return Registry(tmp_path / "registry", 1.0, 0.1, 0.01)


@pytest.fixture
def service(registry: Registry) -> Iterator[FakeService]:
    """Follows the registry at once."""
    with FakeService(lambda: registry.aliases).running() as running:
        yield running


@pytest.fixture
def run(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script with this registry, or with other settings; returns its exit code and what it printed."""
    known = {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "SERVING_REGISTRY_TIMEOUT_SECONDS": "3",
    }

    def call(script: Any, *arguments: str, **environment: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (known | environment).items():
                patch.setenv(name, value)
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
