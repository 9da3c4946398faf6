"""The scripts with `--stage`: a legacy stage is moved, put back and read as the service follows it."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from sklearn.datasets import load_wine

from scripts import history, promote, rollback, validate
from scripts.lifecycle.moves import Selector, read_moves
from serving.prepare.registry.client import resolve
from serving.settings import Settings
from tests.prepare.sync.test_promotion import two_workers
from tests.scripts.lifecycle.test_rollback import run
from tests.support.environment import ROOT, clean_environment
from tests.support.promotions import NAME, Clients, Registry, nan_outputs, versions_answering, wait_answering
from tests.support.services import Service


def transition(registry: Registry, version: str, stage: str) -> None:
    """As people do by hand: what is in the stage stays there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = mlflow.MlflowClient(registry.uri, registry.uri)
        client.transition_model_version_stage(NAME, version, stage)


def stages(registry: Registry) -> dict[str, str]:
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    return {str(v.version): v.current_stage for v in client.search_model_versions(f"name = '{NAME}'")}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Three good versions; the alias is on the first and stays there."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.1, 0.01)


@pytest.fixture
def registry(versions: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Version 1 is in Production, the others in no stage; the scripts find the registry."""
    for version in stages(versions):
        transition(versions, version, "Production" if version == "1" else "None")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", versions.uri)
    monkeypatch.setenv("SERVING_MODEL_NAME", NAME)
    monkeypatch.chdir(tmp_path)
    return versions


def served(registry: Registry) -> str:
    """The version that a service would take."""
    wanted = resolve(Settings(MLFLOW_TRACKING_URI=registry.uri, model_name=NAME, model_stage="Production"))
    return wanted.champion.version


def test_the_current_version_is_the_one_that_the_service_takes(
    registry: Registry, capsys: pytest.CaptureFixture[str]
):
    transition(registry, "3", "Production")
    transition(registry, "1", "Production")
    code, out, _ = run(history, capsys, "--stage", "Production", "--json")
    assert (code, json.loads(out)["current"]) == (0, served(registry)) == (0, "1")


def test_a_promotion_archives_what_was_there_and_leaves_the_alias(
    registry: Registry, capsys: pytest.CaptureFixture[str]
):
    code, out, _ = run(promote, capsys, "2", "--stage", "production", "--why", "better")
    assert code == 0
    assert "wine/Production went from version 1 to 2" in out
    assert stages(registry) == {"1": "Archived", "2": "Production", "3": "None"}
    assert served(registry) == "2"
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    assert {a: str(v) for a, v in client.get_registered_model(NAME).aliases.items()} == {"production": "1"}
    (line,) = Path("audit.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["alias"], told["stage"], told["from"], told["to"]) == (None, "Production", "1", "2")


def test_a_rollback_makes_the_lower_number_current_again(
    registry: Registry, capsys: pytest.CaptureFixture[str]
):
    run(promote, capsys, "3", "--stage", "Production")
    code, out, _ = run(rollback, capsys, "--stage", "Production")
    assert code == 0
    assert "wine/Production went back from version 3 to 1" in out
    assert served(registry) == "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = mlflow.MlflowClient(registry.uri, registry.uri)
        assert client.get_latest_versions(NAME, ["Production"])[0].version == 1


def test_the_stage_of_the_settings_is_the_default_and_an_alias_goes_before_it(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SERVING_MODEL_STAGE", "production")
    assert run(history, capsys)[1].splitlines()[0] == "wine/Production: version 1"
    assert run(history, capsys, "--alias", "blue")[1].splitlines()[0] == "wine@blue: not set"


def test_moves_of_a_stage_and_of_its_namesake_are_told_apart(
    registry: Registry, capsys: pytest.CaptureFixture[str]
):
    run(promote, capsys, "2", "--alias", "Production", "--why", "by alias")
    run(promote, capsys, "3", "--stage", "Production", "--why", "by stage")
    told = json.loads(run(history, capsys, "--stage", "Production", "--json")[1])
    assert told["moves"][-1]["why"] == "by stage"
    assert "by alias" not in {move["why"] for move in told["moves"]}
    mlflow.MlflowClient(registry.uri, registry.uri).delete_registered_model_alias(NAME, "Production")


def test_a_record_from_before_stages_could_be_moved_is_read():
    old = (
        '{"at":"2026-01-02T03:04:05.678901+00:00","who":"me@here","kind":"promote","model":"wine",'
        '"alias":"production","from":null,"to":"1","why":"","results":""}'
    )
    (move,) = read_moves([{"serving.move.20260102T030405.678901Z": old}])
    assert move.selector == Selector("alias", "production")


def test_validation_compares_with_the_version_in_the_stage(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    transition(registry, "3", "Production")
    X, y = load_wine(return_X_y=True, as_frame=True)
    X.assign(kind=y).to_csv(tmp_path / "wine.csv", index=False)
    asked = ("2", "--data", "wine.csv", "--target", "kind", "--min", "f1=0.1", "--stage", "Production")
    assert "compared with version 3" in run(validate, capsys, *asked)[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["2", "--stage", "Production", "--alias", "blue"], "not allowed with"),
        (["2", "--stage", "Archived"], "there are: Production, Staging"),
        (["2", "--stage", "Produktion"], "'Produktion' is not a stage to promote to"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    registry: Registry, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
):
    code, out, err = run(promote, capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err
    assert stages(registry)["1"] == "Production"


@pytest.fixture
def service(registry: Registry, tmp_path: Path) -> Iterator[Service]:
    """Two workers that follow the stage."""
    with two_workers(tmp_path / "service", registry, SERVING_MODEL_STAGE="Production") as running:
        wait_answering(running, "1")
        yield running


Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(registry: Registry, tmp_path: Path) -> Script:
    """Runs a script as people do."""
    environment = {"MLFLOW_TRACKING_URI": registry.uri, "SERVING_MODEL_NAME": NAME}

    def call(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / name), *arguments, "--stage", "Production"],
            cwd=tmp_path,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


def test_a_service_follows_the_stage_there_and_back(service: Service, registry: Registry, script: Script):
    with Clients(service, registry, ("1", "2"), n=2) as clients:
        done = script("promote.py", "2", "--url", service.url, "--watch", "2")
        assert (done.returncode, done.stderr) == (0, "")  # no word of MLflow's about stages
        assert versions_answering(service) == {"2"}
        back = script("rollback.py", "--url", service.url)
        assert (back.returncode, back.stderr) == (0, "")
        assert versions_answering(service) == {"1"}
    assert clients.wrong == []


def test_what_a_service_refuses_goes_back_to_the_stage_it_came_from(
    service: Service, registry: Registry, script: Script
):
    bad = registry.add(nan_outputs)
    transition(registry, bad, "Staging")
    done = script("promote.py", bad, "--url", service.url)
    assert done.returncode == 1
    assert "wine/Production was put back to version 1" in done.stdout
    assert (stages(registry)["1"], stages(registry)[bad]) == ("Production", "Staging")
    assert versions_answering(service) == {"1"}
