"""Which version is served, asked of a real MLflow store; and a real tracking server with authentication."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from serving.errors import ModelNotFound, RegistryUnreachable
from serving.model.digests import DIGEST_TAG
from serving.prepare.__main__ import carry_out
from serving.prepare.registry.client import all_versions, resolve
from serving.prepare.registry.lookup import look_up, read_model
from serving.prepare.registry.resolution import SEMANTIC_VERSION_TAG, Version, latest_moved, resolved
from serving.settings import Settings
from tests.support.doubles import Double, StrictHost
from tests.support.environment import clean_environment, free_port, tracking, wait_until
from tests.support.models import fill_registry, frame, register, wine
from tests.support.services import Service

LOGIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a long one for tests 77"}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with three versions of `wine`, and a deleted one: alias on 2, stages moved about."""
    folder = tmp_path_factory.mktemp("aliases")
    uri = fill_registry(folder, {})
    with tracking(uri):
        register("wine", wine, alias=None)
        client = MlflowClient()
        first = client.get_model_version("wine", "1")
        client.create_registered_model("only-stages")
        for name in ("wine", "wine", "only-stages", "only-stages"):
            client.create_model_version(name, first.source, first.run_id)
        client.create_model_version("wine", first.source, first.run_id)
        client.delete_model_version("wine", "4")
    client = MlflowClient(uri)
    client.set_registered_model_alias("wine", "production", "2")
    client.register_prompt("greeting", "hello {{name}}")
    with pytest.warns(FutureWarning):  # stages are deprecated, and in use
        client.transition_model_version_stage("only-stages", "2", "Production")
        time.sleep(0.01)
        client.transition_model_version_stage("only-stages", "1", "Production")
        client.transition_model_version_stage("wine", "3", "Staging")
    return uri


def settings(uri: str, **more: Any) -> Settings:
    return Settings(MLFLOW_TRACKING_URI=uri, **({"model_name": "wine"} | more))


def test_alias_is_the_default(uri: str) -> None:
    resolved = resolve(settings(uri)).champion
    assert resolved.version == "2"
    assert "alias 'production'" in resolved.because


def test_pinned_version_beats_the_alias(uri: str) -> None:
    assert resolve(settings(uri, model_version=1)).champion.version == "1"


def test_stage_that_is_set_beats_the_alias(uri: str) -> None:
    assert resolve(settings(uri, model_stage="staging")).champion.version == "3"


def test_version_moved_last_wins_in_a_stage_not_the_highest(uri: str) -> None:
    resolved = resolve(settings(uri, model_name="only-stages", model_stage="Production")).champion
    assert resolved.version == "1"
    assert "also there: 2" in resolved.because
    # What MLflow's own URI would have given, which is why it is not used.
    with pytest.warns(FutureWarning):
        assert MlflowClient(uri).get_latest_versions("only-stages", ["Production"])[0].version == 2


def test_stage_of_the_same_name_is_the_fallback_of_an_unset_alias(uri: str) -> None:
    assert resolve(settings(uri, model_name="only-stages")).champion.version == "1"


def test_unset_alias_lists_those_that_are_set(uri: str) -> None:
    with pytest.raises(ModelNotFound, match=r"'blue' \(aliases set: production\)"):
        resolve(settings(uri, model_alias="blue"))


def test_empty_stage(uri: str) -> None:
    with pytest.raises(ModelNotFound, match="'Archived'"):
        resolve(settings(uri, model_stage="Archived"))


def test_prompt_is_not_a_model(uri: str) -> None:
    with pytest.raises(ModelNotFound, match="no model 'greeting'"):
        resolve(settings(uri, model_name="greeting"))


def test_same_number_of_another_registry_is_another_model(uri: str, registry_uri: str) -> None:
    here = resolve(settings(uri, model_version=1)).champion
    there = resolve(settings(registry_uri, model_version=1)).champion
    assert (here.name, here.version) == (there.name, there.version)
    assert here.source_key != there.source_key


def test_another_name_makes_no_other_version_of_one_that_is_being_prepared() -> None:
    """`promote.py` gives it once the alias has moved: what is under way then must not be begun again."""
    version = Version("wine", "7", "s3://a", "run", 1, 2, "None", {DIGEST_TAG: "d"})
    named = version._replace(tags={DIGEST_TAG: "d", SEMANTIC_VERSION_TAG: "2.1.0"})
    before, after = resolved(version, "alias"), resolved(named, "alias")
    assert (before.semantic_version, after.semantic_version) == (None, "2.1.0")
    assert before.fingerprint == after.fingerprint


def test_latest_moved_breaks_ties_by_the_higher_number() -> None:
    versions = [
        Version("wine", str(number), "", None, 0, moved, "Production")
        for number, moved in ((9, 5), (10, 5), (11, 4))
    ]
    assert latest_moved(versions, "Production")[0].version == "10"


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"model_version": 1},
        {"model_stage": "staging"},
        {"model_name": "only-stages", "model_stage": "Production"},
        {"model_name": "only-stages"},
    ],
    ids=str,
)
def test_looking_up_without_mlflow_finds_what_mlflow_finds(uri: str, chosen: dict[str, Any]) -> None:
    assert look_up(settings(uri, **chosen)) == resolve(settings(uri, **chosen))


@pytest.mark.parametrize(
    "chosen",
    [
        {"model_name": "greeting"},
        {"model_name": "nobody"},
        {"model_version": 99},
        {"model_version": 4},
        {"model_alias": "blue"},
        {"model_stage": "Archived"},
    ],
    ids=str,
)
def test_looking_up_leaves_what_is_wrong_to_mlflow(uri: str, chosen: dict[str, Any]) -> None:
    assert look_up(settings(uri, **chosen)) is None


def test_looking_up_leaves_other_registries_to_mlflow(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for other in (
        f"sqlite:///{tmp_path}/missing.db",
        f"sqlite:///{tmp_path}/empty.db",
        "postgresql://u:p@127.0.0.1:1/x",
    ):
        assert look_up(settings(other)) is None
    assert not (tmp_path / "missing.db").exists()


def test_looking_up_imports_neither_mlflow_nor_pandas(uri: str) -> None:
    code = (
        "import sys; from serving.prepare.registry.lookup import look_up; from serving.settings import load_settings\n"
        "assert look_up(load_settings()).champion.version == '2'\n"
        "print(sorted({'mlflow', 'pandas', 'sklearn', 'sqlalchemy'} & set(sys.modules)))"
    )
    environment = clean_environment() | {"MLFLOW_TRACKING_URI": uri, "SERVING_MODEL_NAME": "wine"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture(scope="module")
def server(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` of the registry with basic authentication, and the URI it answers on."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = admin\nadmin_password = {LOGIN['MLFLOW_TRACKING_PASSWORD']}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    port = free_port()
    command = [
        "server",
        "--app-name",
        "basic-auth",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", uri]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = clean_environment() | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key for tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        try:
            wait_until(answers, 90, "the tracking server answers")
        except BaseException:
            print((folder / "server.log").read_text())
            raise
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


@pytest.fixture
def logged_in(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same, and MLflow's functions use it during the test."""
    with tracking(server):
        for name, value in LOGIN.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_tracking_server_is_asked_for_stages_without_mlflow_too(uri: str, logged_in: str) -> None:
    for chosen in ({"model_stage": "staging"}, {"model_name": "only-stages"}, {}):
        expected = resolve(settings(logged_in, **chosen))
        assert look_up(settings(logged_in, **chosen)) == expected
        assert expected.champion.version == resolve(settings(uri, **chosen)).champion.version


def test_a_model_is_read_without_mlflow_as_mlflow_describes_it(uri: str, logged_in: str) -> None:
    for name in ("wine", "only-stages"):
        model = MlflowClient(uri).get_registered_model(name)
        expected = [one._replace(version=str(one.version)) for one in all_versions(MlflowClient(uri), name)]
        for where in (uri, logged_in):
            found = read_model(settings(where), name)
            assert found is not None
            assert found.aliases == {alias: str(version) for alias, version in model.aliases.items()}
            assert sorted(found.versions) == sorted(expected)
    for name in ("nobody", "greeting"):
        assert read_model(settings(uri), name) is None
        assert read_model(settings(logged_in), name) is None


def test_a_log_in_that_is_refused_is_told_in_one_line(
    logged_in: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(RegistryUnreachable, match="rejects the login"):
        look_up(settings(logged_in))
    outcome = carry_out(None, settings(logged_in))
    assert (outcome.wanted, outcome.tag) == (None, None)
    assert "rejects the login" in outcome.message
    assert "MLFLOW_TRACKING_PASSWORD" in outcome.message
    assert "\n" not in outcome.message
    assert "Traceback" not in caplog.text


def test_server_with_authentication(logged_in: str, serve: Callable[..., Service]) -> None:
    mlflow.set_experiment("remote")
    register("remote", wine)
    own = mlflow.sklearn.load_model("models:/remote@production")
    for chosen in ({}, {"model_version": 1}):
        remote = settings(logged_in, model_name="remote", **chosen)
        assert look_up(remote) == resolve(remote)

    remote = {"MLFLOW_TRACKING_URI": logged_in, "SERVING_MODEL_NAME": "remote", "SERVING_SYNC_SECONDS": "60"}
    service = serve(**remote, **LOGIN).wait_ready()
    rows = frame("wine")
    answer = service.predict(rows.to_dict("records"))
    got = [list(entry["probabilities"].values()) for entry in answer["predictions"]]
    np.testing.assert_allclose(got, own.predict_proba(rows), rtol=0, atol=1e-12)
    assert LOGIN["MLFLOW_TRACKING_PASSWORD"] not in service.log


def test_a_server_that_does_not_know_its_own_name_is_told_how_it_learns_it() -> None:
    with Double(StrictHost).running() as server, pytest.raises(RegistryUnreachable) as error:
        look_up(settings(server.url))
    host = server.url.removeprefix("http://")
    assert f"403 Invalid Host header: start its server with MLFLOW_SERVER_ALLOWED_HOSTS={host}" in str(
        error.value
    )
