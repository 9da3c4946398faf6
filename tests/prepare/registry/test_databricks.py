"""A version in a Databricks workspace, of which only MLflow's own protocol is here: its registry and Unity Catalog."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import mlflow
import numpy as np
import pytest

from serving.errors import RegistryUnreachable
from serving.model.digests import digest_of
from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.prepare.registry.lookup import look_up
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.databricks import TOKEN, Workspace
from tests.support.environment import tracking
from tests.support.models import fill_registry, frame, wine
from tests.support.served import answer
from tests.support.stores import s3

NAME = "main.quality_team.wine"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("databricks")
    with tracking(fill_registry(folder, {"wine": wine})):
        files = Path(mlflow.artifacts.download_artifacts("models:/wine/1", dst_path=str(folder / "files")))
    (files / "registered_model_meta").unlink(missing_ok=True)
    with s3(folder) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            if not name.startswith("AWS_ACCESS") and not name.startswith("AWS_SECRET"):
                patch.setenv(name, value)
        client = boto3.client(
            "s3",
            endpoint_url=store.environment["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        for file in files.rglob("*"):
            if file.is_file():
                client.upload_file(str(file), "models", f"catalog/3/{file.relative_to(files)}")
        with Workspace(files, NAME, "s3://models/catalog/3").running() as running:
            yield running


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "databrickscfg"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def logged_in(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)


def check_served(workspace: Workspace, settings: Settings, because: str) -> None:
    assert look_up(settings) is None  # only MLflow's own client knows how
    resolved = resolve(settings).champion
    assert (resolved.name, resolved.version, resolved.because) == (NAME, "3", because)
    prepared = prepare(resolved, settings)
    assert prepared.manifest.digest == digest_of(workspace.files)
    rows = frame("wine")
    own = mlflow.sklearn.load_model(str(workspace.files))
    given = answer(LoadedModel(prepared, settings), rows)
    np.testing.assert_allclose(given.probabilities, own.predict_proba(rows), rtol=0, atol=1e-12)
    assert workspace.strangers == 0


@pytest.mark.usefixtures("logged_in")
def test_unity_catalog_is_the_registry_of_a_workspace(workspace: Workspace):
    settings = Settings(MLFLOW_TRACKING_URI="databricks", model_name=NAME)
    check_served(workspace, settings, "alias 'production'")


@pytest.mark.usefixtures("logged_in")
def test_a_workspaces_own_registry_has_stages(workspace: Workspace):
    settings = Settings(MLFLOW_TRACKING_URI="databricks", MLFLOW_REGISTRY_URI="databricks", model_name=NAME)
    check_served(workspace, settings, "stage 'Production'")


def test_a_profile_logs_in(workspace: Workspace, tmp_path: Path):
    (tmp_path / "databrickscfg").write_text(f"[team]\nhost = {workspace.url}\ntoken = {TOKEN}\n")
    settings = Settings(MLFLOW_TRACKING_URI="databricks://team", model_name=NAME)
    assert settings.registry == "databricks-uc://team"
    check_served(workspace, settings, "alias 'production'")


def test_without_a_login_the_variables_are_named(monkeypatch: pytest.MonkeyPatch):
    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RegistryUnreachable) as error:
        resolve(Settings(MLFLOW_TRACKING_URI="databricks", model_name=NAME))
    assert "the registry databricks-uc cannot be queried" in str(error.value)
    assert "DATABRICKS_HOST and DATABRICKS_TOKEN" in str(error.value)


def test_unity_catalog_is_no_tracking_server():
    with pytest.raises(RegistryUnreachable, match="MLFLOW_TRACKING_URI=databricks"):
        resolve(Settings(MLFLOW_TRACKING_URI="databricks-uc", model_name=NAME))
