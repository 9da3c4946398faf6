"""Files of versions in the stores that MLflow knows, each behind its own server."""

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client
from sklearn.linear_model import LinearRegression

from serving.errors import ModelNotFound, ModelRefused
from serving.model.digests import digest_of
from serving.model.prepared import fetched_folder
from serving.prepare.build import prepare
from serving.prepare.files import pull
from serving.prepare.registry import artifacts
from serving.prepare.registry.client import resolve
from serving.prepare.registry.resolution import Resolved
from serving.prepare.registry.stores import find_place
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import free_port, tracking
from tests.support.models import REQUIREMENTS, fill_registry, register
from tests.support.promotions import tracking_server
from tests.support.served import answer
from tests.support.stores import STORES, Store, s3

X = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=["a", "b", "c"])
MODEL = LinearRegression().fit(X, X.sum(axis=1))


class Registered:
    """A version whose files lie in a store."""

    def __init__(self, uri: str, store: Store, home: Path) -> None:
        self.settings = Settings(MLFLOW_TRACKING_URI=uri, model_name="linear")
        self.resolved: Resolved = resolve(self.settings).champion
        self.store = store
        self.target = home / "pulled"

    @property
    def fetched(self) -> Path:
        """The folder of what is fetched."""
        return fetched_folder("linear", self.resolved.source_key)

    def pull(self, **changed: Any) -> None:
        """Fetches the files as an attempt does."""
        self.fetched.parent.mkdir(parents=True, exist_ok=True)
        pull(self.resolved, self.target, self.settings.model_copy(update=changed))


def log(name: str) -> Any:
    return mlflow.sklearn.log_model(
        MODEL,
        name=name,
        registered_model_name=name,
        serialization_format="skops",
        signature=infer_signature(X),
        input_example=X[:5],
        **REQUIREMENTS,
    )


@pytest.fixture(scope="module", params=STORES)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Store]]:
    """A registry, and the store with its version."""
    folder = tmp_path_factory.mktemp(request.param)
    with STORES[request.param](folder) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield fill_registry(folder / "registry", {"linear": log}, store.uri), store


@pytest.fixture
def registered(
    filled: tuple[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registered]:
    uri, store = filled
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    with tracking(uri):
        yield Registered(uri, store, tmp_path)


def test_a_version_in_the_store_is_served_as_it_was_registered(registered: Registered, tmp_path: Path):
    model = LoadedModel(prepare(registered.resolved, registered.settings), registered.settings)
    own = mlflow.artifacts.download_artifacts("models:/linear/1", dst_path=str(tmp_path / "own"))
    assert model.manifest.digest == digest_of(Path(own))
    given = answer(model, X[:5])
    np.testing.assert_allclose(np.asarray(given.values).ravel(), MODEL.predict(X[:5]), rtol=1e-12)
    assert not registered.fetched.exists()


CLIENTS = {
    "s3": ("boto3", "serving"),
    "gs": ("google.cloud.storage", "gcs"),
    "wasbs": ("azure.storage.blob", "azure"),
}


def test_a_client_that_is_not_installed_is_named_with_the_way_to_get_it_and_not_tried_again(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
):
    module, requirements = CLIENTS[registered.store.uri.partition(":")[0]]
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    package, _, last = module.rpartition(".")
    if package and hasattr(sys.modules.get(package), last):
        monkeypatch.delattr(sys.modules[package], last)
    monkeypatch.setitem(sys.modules, module, None)
    _cached_get_s3_client.cache_clear()
    with pytest.raises(ModelRefused) as error:
        registered.pull()
    assert f"requirements/{requirements}.txt" in str(error.value)
    assert f"STORES={requirements}" in str(error.value)
    assert error.value.final_after == 1


def test_what_the_store_says_is_said(registered: Registered, monkeypatch: pytest.MonkeyPatch):
    where = registered.store.uri.replace("models", "elsewhere", 1)
    monkeypatch.setattr(
        mlflow.MlflowClient, "get_model_version_download_uri", lambda *_: f"{where}/models/m-1/artifacts"
    )
    with pytest.raises(ModelNotFound) as error:
        registered.pull()
    assert "secret" not in str(error.value)
    assert any(
        said in str(error.value)
        for said in (
            f"from {where}/models/m-1/artifacts (S3 at {os.environ.get('MLFLOW_S3_ENDPOINT_URL')}, by "
            "MLFLOW_S3_ENDPOINT_URL): NoSuchBucket: the store does not have this bucket",
            f"from {where}/models/m-1/artifacts (Google Cloud Storage at {os.environ.get('STORAGE_EMULATOR_HOST')}, by "
            "STORAGE_EMULATOR_HOST): NotFound 404: the store does not have this bucket",
            f"from {where}/models/m-1/artifacts (Azure Storage by AZURE_STORAGE_CONNECTION_STRING): "
            "ResourceNotFoundError ContainerNotFound: the store does not have this container",
        )
    ), str(error.value)


def test_files_larger_than_allowed_are_refused_before_one_is_fetched(registered: Registered):
    with pytest.raises(ModelRefused, match=r"more than the limit of 0\.001"):
        registered.pull(max_model_mb=0.001)
    assert list((registered.fetched / "complete").iterdir()) == []


Download = Callable[[str, str], str]


@contextlib.contextmanager
def downloading(how: Callable[[Download, str, str], str]) -> Iterator[None]:
    """Files are fetched in another way meanwhile."""
    opening = artifacts.open_repository

    def open_repository(*args: Any) -> Any:
        repository = opening(*args)
        repository.download_artifacts = functools.partial(how, repository.download_artifacts)
        return repository

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "open_repository", open_repository)
        yield


def test_an_attempt_that_breaks_off_leaves_what_is_complete_to_the_next(
    registered: Registered, tmp_path: Path
):
    asked: list[str] = []

    def break_off(download: Download, path: str, folder: str) -> str:
        fetched = download(path, folder)
        if path == "model.skops":
            Path(fetched).write_bytes(b"half")
            raise ConnectionError
        return fetched

    def note(download: Download, path: str, folder: str) -> str:
        asked.append(path)
        return download(path, folder)

    with downloading(break_off), pytest.raises(ModelNotFound, match="ConnectionError"):
        registered.pull()
    complete = {file.name for file in (registered.fetched / "complete").iterdir()}
    assert "MLmodel" in complete
    with downloading(note):
        registered.pull()
    assert "model.skops" in asked
    assert not complete & set(asked)
    own = mlflow.artifacts.download_artifacts("models:/linear/1", dst_path=str(tmp_path / "own"))
    assert digest_of(registered.target) == digest_of(Path(own))


def test_the_log_says_how_far_a_download_is(
    registered: Registered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def slowly(download: Download, path: str, folder: str) -> str:
        time.sleep(0.05)
        return download(path, folder)

    monkeypatch.setattr(artifacts, "PROGRESS_SECONDS", 0.02)
    with caplog.at_level(logging.INFO, "serving.prepare"), downloading(slowly):
        registered.pull()
    assert "fetching 'linear' version 1: 0 of 0 MB" in caplog.text
    assert "fetched 'linear' version 1: 0.0 MB in " in caplog.text


@pytest.mark.parametrize("serves_artifacts", [True, False])
def test_a_tracking_server_hands_on_what_lies_in_s3_or_the_service_fetches_it_there(
    *, serves_artifacts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    with s3(tmp_path) as store:
        options = (
            ("--serve-artifacts", "--artifacts-destination", store.uri)
            if serves_artifacts
            else ("--no-serve-artifacts", "--default-artifact-root", store.uri)
        )
        with (
            tracking_server(f"sqlite:///{tmp_path}/mlflow.db", port, *options, **store.environment),
            tracking(uri),
        ):
            if not serves_artifacts:
                for name, value in store.environment.items():
                    monkeypatch.setenv(name, value)
            mlflow.set_experiment("models")
            register("linear", log)
            registered = Registered(uri, store, tmp_path)
            model = LoadedModel(prepare(registered.resolved, registered.settings), registered.settings)
            place = find_place(registered.resolved, registered.settings)
    assert place.scheme == ("mlflow-artifacts" if serves_artifacts else "s3")
    np.testing.assert_allclose(
        np.asarray(answer(model, X[:5]).values).ravel(), MODEL.predict(X[:5]), rtol=1e-12
    )
