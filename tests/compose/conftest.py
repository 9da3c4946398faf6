"""Model servers as compose.yaml has them: of the same registry, with prepared versions that they share."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from serving.process.child import PARENT_VARIABLE
from tests.support.models import copy_registry
from tests.support.prepared import prepare_all
from tests.support.promotions import NAME, Registry, trapped
from tests.support.services import Service, running_service
from tests.support.shared import once

QUICK, SLUGGISH = "1", "2"
"""Versions of the registry: one that is compiled, and one that takes a fifth of a second for each call."""

Start = Callable[..., contextlib.AbstractContextManager[Service]]


def make_versions(folder: Path) -> None:
    """Fills a registry, and prepares what is in it."""
    registry = Registry(folder, 1.0)
    registry.add(trapped("sluggish"))
    # As a process that prepares: there it is not sluggish.
    with mock.patch.dict(os.environ, {PARENT_VARIABLE: str(os.getppid())}):
        prepare_all(registry.uri)


@pytest.fixture(scope="package")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry; the sluggish version is the shadow of services that want one."""
    registry = Registry(tmp_path_factory.mktemp("versions"), 1.0)
    copy_registry(once("wine-sluggish", make_versions), Path(registry.uri.removeprefix("sqlite:///")).parent)
    registry.client.set_registered_model_alias(NAME, "shadow", SLUGGISH)
    return registry


@pytest.fixture(scope="package")
def start(versions: Registry, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a server, and ends it."""
    given = {
        "MLFLOW_TRACKING_URI": versions.uri,
        "SERVING_MODEL_NAME": NAME,
        "BENTOML_HOME": str(tmp_path_factory.mktemp("prepared")),
    }

    def running(**settings: str) -> contextlib.AbstractContextManager[Service]:
        return running_service(tmp_path_factory.mktemp("server"), **given | settings)

    return running


@pytest.fixture(scope="package")
def servers(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """Two of them, with a model and its shadow."""
    settings = {
        "SERVING_SHADOW_ALIAS": "shadow",
        "SERVING_LOG_PREDICTIONS": str(tmp_path_factory.mktemp("predictions")),
    }
    # SQLite is for one replica; it is evaluated at most once.
    feedback = {"SERVING_FEEDBACK_STORE": "sqlite", "SERVING_QUALITY_SECONDS": "86400"}
    with start(**settings, **feedback) as one, start(**settings) as two:
        yield [one.wait_ready(), two.wait_ready()]


def address_of(service: Service) -> str:
    """Returns its `host:port`."""
    return service.url.removeprefix("http://")
