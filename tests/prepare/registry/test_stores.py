"""What keeps a service from an artifact store is told in words, with the place and the variable that is to be mended."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client, _get_s3_client

from serving.errors import ModelNotFound
from serving.prepare.files import read_mlmodel
from serving.prepare.registry.artifacts import fetch
from serving.prepare.registry.resolution import Resolved
from serving.prepare.registry.stores import Place
from serving.settings import Settings
from tests.support.environment import free_port
from tests.support.models import fill_registry

S3 = "s3://models/1/models/m-1/artifacts"
AZURE = "wasbs://models@account.blob.core.windows.net/1"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No client knows anything of this machine's, or of another test's."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AZURE_STORAGE_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    # MLflow's client creates the tables of the default one, in the folder that other tests run in, too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", fill_registry(tmp_path / "registry", {}))
    _cached_get_s3_client.cache_clear()


def versions_at(uri: str) -> Resolved:
    return Resolved("churn", "1", None, "0", "'churn' version 1", unregistered_uri=uri)


def refusal(uri: str, folder: Path) -> str:
    with pytest.raises(ModelNotFound) as error:
        fetch(versions_at(uri), folder, Settings())
    return str(error.value)


class NotFound(http.server.BaseHTTPRequestHandler):
    """A server of something else."""

    def do_GET(self) -> None:
        """Knows no page."""
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.fixture(scope="module")
def other_server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("uri", "environment", "said"),
    [
        (
            S3,
            KEYS | {"MLFLOW_S3_ENDPOINT_URL": "minio:9000"},
            "(S3 at minio:9000, by MLFLOW_S3_ENDPOINT_URL): expected an endpoint that begins with http:// or https://; "
            "correct MLFLOW_S3_ENDPOINT_URL",
        ),
        (
            S3,
            KEYS | {"AWS_ENDPOINT_URL": "minio"},
            "(S3 at minio, by AWS_ENDPOINT_URL): expected an endpoint",
        ),
        (S3, KEYS | {"AWS_PROFILE": "prodd"}, "there is no profile 'prodd' (AWS_PROFILE)"),
        (
            S3,
            {},
            "no MLFLOW_S3_ENDPOINT_URL or AWS_ENDPOINT_URL is set): NoCredentialsError: no credentials were found",
        ),
        (S3, KEYS | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}"}, "nothing answers there"),
        (
            AZURE,
            {"AZURE_STORAGE_CONNECTION_STRING": ""},
            "AZURE_STORAGE_CONNECTION_STRING is empty or malformed",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_the_place(
    uri: str, environment: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    message = refusal(uri, tmp_path)
    assert f"cannot be fetched from {uri} (" in message
    assert said in message
    assert "secret" not in message


def test_a_server_that_is_no_s3_is_told_from_a_missing_bucket(
    other_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (KEYS | {"MLFLOW_S3_ENDPOINT_URL": other_server}).items():
        monkeypatch.setenv(name, value)
    message = refusal(S3, tmp_path)
    assert (
        "expected an S3 store, got status 404 from another server; check that MLFLOW_S3_ENDPOINT_URL names"
        in message
    )


@pytest.mark.parametrize("ignored", ["false", "true"])
@pytest.mark.parametrize(
    "names",
    [
        ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL",),
    ],
)
def test_the_endpoint_that_is_named_is_the_one_that_mlflow_asks(
    names: tuple[str, ...], ignored: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", ignored)
    for name in names:
        monkeypatch.setenv(name, f"http://{name.replace('_', '-').lower()}:9000")
    asked = _get_s3_client().meta.endpoint_url
    variable = Place(S3).variable
    own = None if asked.endswith("amazonaws.com") else asked
    assert own == (f"http://{variable.replace('_', '-').lower()}:9000" if variable else None)


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(
        ModelNotFound, match=r"cannot be fetched from s3://models/1/models/m-1/artifacts \(S3"
    ):
        read_mlmodel(tmp_path, versions_at(S3), Settings())
