"""The fixtures that all tests share: an MLflow store with models in it, and running services."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["BENTOML_DO_NOT_TRACK"] = "True"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
# Test files run side by side: threads of each for every processor take more time than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tests.support.environment import tracking  # from this checkout
from tests.support.prepared import prepare_all  # the same
from tests.support.services import Service, running_service  # the same
from tests.support.shared import make_shared_folder, once, remove_shared_folder  # the same


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder that the test processes of this run share."""
    # A shell that runs them in the background has them, and all that they start, ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = make_shared_folder()
    if folder is not None:
        config.add_cleanup(lambda: remove_shared_folder(folder))


LONGEST = (
    "tests/prepare/sync",
    "tests/scripts/test_demo_promotion.py",
    "tests/scripts/test_demo.py",
    "tests/scripts/rollout/test_services.py",
    "tests/scripts/smoke",
    "tests/docs/test_lifecycle_docs.py",
    "tests/process/test_hanging.py",
)
"""Files of half a minute and more each. They begin first, so that none is left alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; marks the tests of properties, whose long form is more examples."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    for item in items:
        if getattr(getattr(item, "function", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.soak)


@pytest.fixture(scope="session")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a real MLflow store that holds the models of `tests/support/models.py`."""
    from tests.support.models import MODELS, copy_registry, fill_registry

    made = once("models", lambda folder: prepare_all(fill_registry(folder, MODELS)))
    return copy_registry(made, tmp_path_factory.mktemp("registry"))


@pytest.fixture
def registry(registry_uri: str) -> Iterator[str]:
    """The same, and MLflow's functions use it during the test."""
    with tracking(registry_uri):
        yield registry_uri


@pytest.fixture
def given_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are logged without requirements get those of our own tests.

    MLflow would find them out in another process, in four seconds for each.
    """
    import mlflow

    from tests.support.models import REQUIREMENTS

    monkeypatch.setattr(
        mlflow.models, "infer_pip_requirements", lambda *_, **__: REQUIREMENTS["pip_requirements"]
    )


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
