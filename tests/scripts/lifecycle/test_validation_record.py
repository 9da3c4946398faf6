"""What a validation found, in the record of the move that followed it."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from sklearn.datasets import load_wine

from scripts import history, promote
from scripts.lifecycle.moves import MAX_TAG_CHARACTERS, TAG_PREFIX, Selector, encode_tag, new_move, read_moves
from scripts.lifecycle.scoring import WHOLE
from scripts.lifecycle.validation_record import Check, Results
from tests.support.environment import tracking
from tests.support.promotions import NAME, Registry

N_REGIONS = 60


def results(n_met: int, n_not_met: int) -> Results:
    regions = [
        Check(f"region = {i}", "f1", "at least 0.8", 0.9, 0.85, i < n_met) for i in range(n_met + n_not_met)
    ]
    return Results("recent.csv", 10_000, "1", [Check(WHOLE, "f1", "at least 0.8", 0.9, 0.85, True), *regions])


def kept(found: Results) -> Results:
    """What is read of the tag."""
    move = new_move(
        "promote", NAME, Selector("alias", "production"), source="1", target="2", why="", results=found
    )
    value = encode_tag(move)
    assert len(value) <= MAX_TAG_CHARACTERS
    (read,) = read_moves([{move.tag: value}])
    assert isinstance(read.results, Results)
    return read.results


def test_a_tag_holds_all_checks_where_they_fit():
    assert kept(results(20, 0)) == results(20, 0)


def test_a_tag_says_how_many_checks_it_has_no_room_for():
    found = kept(results(200, 0))
    assert len(found.checks) + found.left_out == 201
    assert found.left_out > 0
    assert found.checks[0].where == WHOLE


def test_one_check_more_would_not_fit():
    everything = results(200, 0)
    one_more = everything.cut(len(kept(everything).checks) + 1)
    assert kept(one_more).left_out > one_more.left_out


def test_what_is_not_met_is_kept_first():
    found = kept(results(200, 3))
    assert [check.is_met for check in found.checks[:4]] == [False, False, False, True]
    assert found.summary == "10,000 rows, compared with version 1: 3 of 204 checks not met"


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, Path]:
    """Version 2, validated and promoted with more slices than a tag has room for, and the folder of the audit log."""
    folder = tmp_path_factory.mktemp("promoted")
    registry = Registry(folder / "own", 1.0, 0.1, 0.01)
    X, y = load_wine(return_X_y=True, as_frame=True)
    rows = pd.concat([X.assign(kind=y, region=region) for region in range(N_REGIONS)])
    rows.to_csv(folder / "recent.csv", index=False)
    checks = ["--min", "accuracy=0.5", "--max-drop", "accuracy=0.5", "--by", "region"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", registry.uri)
        patch.setenv("SERVING_MODEL_NAME", NAME)
        patch.chdir(folder)
        assert promote.main(["2", "--data", "recent.csv", "--target", "kind", *checks]) == 0
    return registry, folder


def audited(folder: Path) -> dict[str, Any]:
    (line,) = (folder / "audit.jsonl").read_text().splitlines()
    return dict(json.loads(line)["results"])


def test_the_audit_log_holds_every_check(promoted: tuple[Registry, Path]):
    registry, folder = promoted
    X, y = load_wine(return_X_y=True, as_frame=True)
    with tracking(registry.uri):
        of = {v: (mlflow.sklearn.load_model(f"models:/{NAME}/{v}").predict(X) == y).mean() for v in "12"}
    found = audited(folder)
    assert (found["data"], found["rows"], found["compared_with"]) == ("recent.csv", 178 * N_REGIONS, "1")
    assert len(found["checks"]) == 2 * (1 + N_REGIONS)
    assert found["checks"][0] == {
        "where": "all rows",
        "metric": "accuracy",
        "rule": "at least 0.5",
        "value": pytest.approx(of["2"]),
        "before": pytest.approx(of["1"]),
        "is_met": True,
    }


def test_the_registry_takes_a_tag_with_the_first_of_them(promoted: tuple[Registry, Path]):
    registry, folder = promoted
    tags = mlflow.MlflowClient(registry.uri, registry.uri).get_model_version(NAME, "2").tags
    (value,) = (value for name, value in tags.items() if name.startswith(TAG_PREFIX))
    told = json.loads(value)["results"]
    assert told["checks"] == audited(folder)["checks"][: len(told["checks"])]
    assert len(told["checks"]) + told["left_out"] == 2 * (1 + N_REGIONS)


def test_the_history_shows_checks_in_json_and_a_line_in_the_table(
    promoted: tuple[Registry, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", promoted[0].uri)
    monkeypatch.setenv("SERVING_MODEL_NAME", NAME)
    assert history.main(["--json"]) == 0
    (move,) = json.loads(capsys.readouterr().out)["moves"]
    assert move["results"]["checks"][0]["where"] == "all rows"
    assert history.main([]) == 0
    assert "10,680 rows, compared with version 1: all 122 checks met" in capsys.readouterr().out


def test_the_line_of_an_old_record_is_shown():
    old = (
        '{"at":"2026-01-02T03:04:05.678901+00:00","who":"me@here","kind":"promote","model":"wine",'
        '"alias":"production","from":"1","to":"2","why":"","results":"wine version 2 on 9 rows: all 1 checks met"}'
    )
    moves = read_moves([{"serving.move.20260102T030405.678901Z": old}])
    assert "wine version 2 on 9 rows: all 1 checks met" in history.to_table(moves, {}, 200)[1]
