"""The scripts with `--stage`: a legacy stage is moved, put back and read as the service follows it."""

import json
import warnings
from pathlib import Path

import pytest
from sklearn.datasets import load_wine

from scripts import history, promote, rollback, validate
from scripts.lifecycle.moves import Selector, read_moves
from serving.prepare.registry.client import resolve
from serving.settings import Settings
from tests.support.fake_service import FakeService, Run
from tests.support.promotions import NAME, Clients, Registry, two_workers, versions_answering, wait_answering


@pytest.fixture
def registry(registry: Registry) -> Registry:
    """Version 1 is in Production, the others in no stage; the alias is on the first and stays there."""
    registry.transition("1", "Production")
    return registry


def served(registry: Registry) -> str:
    """The version that a service would take."""
    wanted = resolve(Settings(MLFLOW_TRACKING_URI=registry.uri, model_name=NAME, model_stage="Production"))
    return wanted.champion.version


def test_the_current_version_is_the_one_that_the_service_takes(registry: Registry, run: Run):
    registry.transition("3", "Production")
    registry.transition("1", "Production")
    code, out, _ = run(history, "--stage", "Production", "--json")
    assert (code, json.loads(out)["current"]) == (0, served(registry)) == (0, "1")


def test_a_promotion_archives_what_was_there_and_leaves_the_alias(registry: Registry, run: Run):
    code, out, _ = run(promote, "2", "--stage", "production", "--why", "better")
    assert code == 0
    assert "wine/Production went from version 1 to 2" in out
    assert registry.stages == {"1": "Archived", "2": "Production", "3": "None"}
    assert served(registry) == "2"
    assert registry.aliases == {"production": "1"}
    (line,) = Path("audit.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["alias"], told["stage"], told["from"], told["to"]) == (None, "Production", "1", "2")


def test_a_rollback_makes_the_lower_number_current_again(registry: Registry, run: Run):
    run(promote, "3", "--stage", "Production")
    code, out, _ = run(rollback, "--stage", "Production")
    assert code == 0
    assert "wine/Production went back from version 3 to 1" in out
    assert served(registry) == "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert registry.client.get_latest_versions(NAME, ["Production"])[0].version == 1


def test_the_stage_of_the_settings_is_the_default_and_an_alias_goes_before_it(registry: Registry, run: Run):
    settings = {"SERVING_MODEL_STAGE": "production"}
    assert run(history, **settings)[1].splitlines()[0] == "wine/Production: version 1"
    assert run(history, "--alias", "blue", **settings)[1].splitlines()[0] == "wine@blue: not set"


def test_moves_of_a_stage_and_of_its_namesake_are_told_apart(registry: Registry, run: Run):
    run(promote, "2", "--alias", "Production", "--why", "by alias")
    run(promote, "3", "--stage", "Production", "--why", "by stage")
    told = json.loads(run(history, "--stage", "Production", "--json")[1])
    assert told["moves"][-1]["why"] == "by stage"
    assert "by alias" not in {move["why"] for move in told["moves"]}


def test_a_record_from_before_stages_could_be_moved_is_read():
    old = (
        '{"at":"2026-01-02T03:04:05.678901+00:00","who":"me@here","kind":"promote","model":"wine",'
        '"alias":"production","from":null,"to":"1","why":"","results":""}'
    )
    (move,) = read_moves([{"serving.move.20260102T030405.678901Z": old}])
    assert move.selector == Selector("alias", "production")


def test_validation_compares_with_the_version_in_the_stage(registry: Registry, run: Run, tmp_path: Path):
    registry.transition("3", "Production")
    X, y = load_wine(return_X_y=True, as_frame=True)
    X.assign(kind=y).to_csv(tmp_path / "wine.csv", index=False)
    asked = ("2", "--data", "wine.csv", "--target", "kind", "--min", "f1=0.1", "--stage", "Production")
    assert "compared with version 3" in run(validate, *asked)[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["2", "--stage", "Production", "--alias", "blue"], "not allowed with"),
        (["2", "--stage", "Archived"], "there are: Production, Staging"),
        (["2", "--stage", "Produktion"], "'Produktion' is not a stage to promote to"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    registry: Registry, run: Run, arguments: list[str], part: str
):
    code, out, err = run(promote, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err
    assert registry.stages["1"] == "Production"


def test_what_a_service_refuses_goes_back_to_the_stage_it_came_from(
    registry: Registry, service: FakeService, run: Run
):
    registry.transition("2", "Staging")

    def refuse() -> None:
        if registry.stages["2"] == "Production":
            service.refused = [{"version": "2", "reason": "it is bad", "at": "2026-01-01T00:00:00+00:00"}]

    service.on_look = refuse
    code, out, _ = run(promote, "2", "--stage", "Production", "--url", service.url)
    assert code == 1
    assert "wine/Production was rolled back to version 1" in out
    assert "it is bad" in out
    assert registry.stages == {"1": "Production", "2": "Staging", "3": "None"}


def test_a_real_service_follows_the_stage_there_and_back(registry: Registry, run: Run, tmp_path: Path):
    with two_workers(tmp_path / "service", registry, SERVING_MODEL_STAGE="Production") as service:
        wait_answering(service, "1")
        with (
            Clients(service, registry, ("1", "2"), n=2, pause_seconds=0.02) as clients,
            warnings.catch_warnings(record=True) as told,  # MLflow's word about stages is not for users
        ):
            warnings.simplefilter("always", FutureWarning)
            code, _, err = run(promote, "2", "--stage", "Production", "--url", service.url, "--watch", "1")
            assert (code, err) == (0, "")
            assert versions_answering(service) == {"2"}
            code, _, err = run(rollback, "--stage", "Production", "--url", service.url)
            assert (code, err) == (0, "")
            assert versions_answering(service) == {"1"}
        assert clients.wrong == []
    assert [str(one.message) for one in told if one.category is FutureWarning] == []
