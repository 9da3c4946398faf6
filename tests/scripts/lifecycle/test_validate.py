"""`scripts/validate.py`: thresholds, the version in production, slices."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scripts.validate
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.scoring import WHOLE, Rules, judge, parse_thresholds, score_output
from scripts.lifecycle.validation_record import Check
from serving.runtime import Output
from tests.support.environment import tracking
from tests.support.fake_service import Run
from tests.support.promotions import NAME, Registry, log_wine, trapped


def test_metrics_of_a_hand_made_classifier():
    target = pd.Series(["no", "no", "yes", "yes"])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5]])
    output = Output(labels=np.array(["no", "yes", "yes", "no"], dtype=object), probabilities=probabilities)
    scores = score_output(target, output, ["no", "yes"])
    assert scores["accuracy"] == 0.5
    # Of "no": precision 1/2, recall 1/2; the same of "yes".
    assert scores["f1"] == pytest.approx(0.5)
    assert scores["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.8, 0.5])))
    # Of the four pairs, one right answer each, "yes" is the likelier in three: 0.8 and 0.5 over 0.1, 0.8 over 0.6.
    assert scores["roc_auc"] == pytest.approx(3 / 4)


def test_metrics_of_a_hand_made_regression():
    scores = score_output(pd.Series([1.0, 2.0, 3.0]), Output(values=np.array([1.0, 2.0, 5.0])), None)
    assert scores["mae"] == pytest.approx(2 / 3)
    assert scores["rmse"] == pytest.approx(np.sqrt(4 / 3))
    assert scores["r2"] == pytest.approx(1 - 4 / 2)


def test_a_label_that_the_model_does_not_know_leaves_the_metrics_that_can_be_had():
    output = Output(labels=np.array([0, 1]), probabilities=np.eye(2))
    assert set(score_output(pd.Series([0, 7]), output, [0, 1])) == {"accuracy", "f1"}


@pytest.mark.parametrize(
    ("rules", "before", "met"),
    [
        (Rules({"accuracy": 0.8}, {}, {}), {}, [True]),
        (Rules({"accuracy": 0.81}, {}, {}), {}, [False]),
        (Rules({"roc_auc": 0.1}, {}, {}), {}, [False]),  # it could not be computed
        (Rules({}, {"log_loss": 0.5}, {}), {}, [True]),
        (Rules({}, {"log_loss": 0.4}, {}), {}, [False]),
        (Rules({}, {}, {"accuracy": 0.01}), {}, []),  # nothing is in production
        (Rules({}, {}, {"accuracy": 0.01}), {"accuracy": 0.81}, [True]),
        (Rules({}, {}, {"accuracy": 0.01}), {"accuracy": 0.82}, [False]),
        (Rules({}, {}, {"accuracy": 0.01}), {"accuracy": 0.1}, [True]),
        (Rules({}, {}, {"log_loss": 0.01}), {"log_loss": 0.48}, [False]),  # of an error, more is worse
        (Rules({}, {}, {"log_loss": 0.01}), {"log_loss": 0.9}, [True]),
        (Rules({}, {}, {"accuracy": 0}), {"accuracy": 0.8}, [True]),
    ],
)
def test_thresholds(rules: Rules, before: dict[str, float], met: list[bool]):
    scores = {WHOLE: {"accuracy": 0.8, "log_loss": 0.5}}
    checks = judge(scores, {WHOLE: before} if before else {}, rules)
    assert [check.is_met for check in checks] == met


def test_each_slice_is_judged():
    scores = {WHOLE: {"f1": 0.9}, "region = east": {"f1": 0.5}}
    assert judge(scores, {}, Rules({"f1": 0.8}, {}, {})) == [
        Check(WHOLE, "f1", "at least 0.8", 0.9, None, True),
        Check("region = east", "f1", "at least 0.8", 0.5, None, False),
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [("beauty=1", "no metric 'beauty'"), ("f1=much", "accuracy=0.8"), ("f1=nan", "accuracy=0.8")],
)
def test_a_threshold_that_is_none_is_told(text: str, part: str):
    with pytest.raises(LifecycleError, match=part):
        parse_thresholds([text])


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Version 1 is in production and good, version 3 a little less so."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.1, 0.01)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of right answers."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    file = tmp_path / "wine.csv"
    X.assign(kind=y, region=np.where(X["alcohol"] > 13, "south", "north")).to_csv(file, index=False)
    return file


@pytest.fixture
def registry(versions: Registry) -> Registry:
    """Nothing is changed in it."""
    return versions


Validate = Callable[..., tuple[int, str, str]]
"""Runs the script on the right answers; returns its exit code and what it printed."""


@pytest.fixture
def validate(run: Run, data: Path) -> Validate:
    def call(*arguments: str) -> tuple[int, str, str]:
        target = () if "--target" in arguments else ("--target", "kind")
        return run(scripts.validate, *arguments, "--data", str(data), *target)

    return call


def own_accuracy(versions: Registry, version: str) -> float:
    X, y = load_wine(return_X_y=True, as_frame=True)
    with tracking(versions.uri):
        return float((mlflow.sklearn.load_model(f"models:/{NAME}/{version}").predict(X) == y).mean())


def test_a_version_that_falls_short_is_told_and_ends_with_1(versions: Registry, validate: Validate):
    expected = {version: own_accuracy(versions, version) for version in "13"}
    assert expected["3"] < expected["1"]
    code, out, _ = validate("3", "--min", "accuracy=0.99", "--max-drop", "accuracy=0.01", "--json")
    told = json.loads(out)
    assert code == 1
    assert told["is_met"] is False
    assert told["scores"][WHOLE]["accuracy"] == pytest.approx(expected["3"])
    assert told["before"][WHOLE]["accuracy"] == pytest.approx(expected["1"])
    assert [check["is_met"] for check in told["checks"]] == [False, False]

    code, out, _ = validate("3", "--min", "accuracy=0.99")
    assert code == 1
    assert "178 rows, compared with version 1: 1 check not met" in out
    assert "NOT MET" in out


def test_a_good_version_passes_with_slices(validate: Validate):
    code, out, _ = validate("1", "--min", "accuracy=0.9", "--max", "log_loss=0.5", "--by", "region")
    assert code == 0
    assert "all 6 checks met" in out
    assert "region = north" in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["1"], "nothing to check"),
        (["1", "--target", "taste"], "no column 'taste'"),
        (["9", "--min", "f1=0.5"], "has no version 9"),
        (["1", "--min", "f1=0.5", "--by", "planet"], "no column 'planet'"),
        (["1", "--min", "f1=0.5", "--target", "taste"], "no column 'taste'"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(validate: Validate, arguments: list[str], part: str):
    code, out, err = validate(*arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert err.count("\n") == 1


def test_rows_that_the_versions_were_trained_on_are_warned_about(validate: Validate, data: Path):
    code, out, _ = validate("3", "--min", "f1=0.1")
    assert code == 0
    for version in "31":
        assert (
            f"warning: 3 of the 3 example rows logged with version {version} are in wine.csv: if it was "
            "trained on this file, scores say little about new rows"
        ) in out
    rows = pd.read_csv(data)
    rows["alcohol"] += 0.001
    rows.to_csv(data, index=False)
    code, out, _ = validate("3", "--min", "f1=0.1", "--json")
    assert (code, json.loads(out)["warnings"]) == (0, [])


def test_a_pickle_is_not_loaded_here_either(versions: Registry, validate: Validate):
    version = versions.add(trapped("none"))
    code, _, err = validate(version, "--min", "f1=0.5")
    assert code == 2
    assert "SERVING_ALLOW_PICKLE" in err


def text_labels(name: str) -> Any:
    """Logs a model whose labels are "0", "1" and "2"."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y.astype(str))
    return log_wine(model, X, name)


def regression(name: str) -> Any:
    """Logs a model that answers with numbers."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    return log_wine(LinearRegression().fit(X, y.astype(float)), X, name)


@pytest.fixture(scope="module")
def of_kind(versions: Registry) -> dict[str, str]:
    """Versions whose answers are of some kind."""
    found = {"text": versions.add(text_labels), "numbers": versions.add(regression)}
    return {"labels": "2", "production": "1"} | found


@pytest.mark.parametrize(
    ("kind", "change", "arguments", "part"),
    [
        (
            "labels",
            {"alcohol": np.nan},
            ["--min", "f1=0.5"],
            "version 2 does not take the rows: ValueError: ",
        ),
        ("labels", {"kind": "a"}, ["--min", "f1=0.5"], "cannot be compared with those of version 2"),
        ("numbers", {"kind": "a"}, ["--min", "r2=0.5"], "cannot be compared with those of version"),
        ("text", {}, ["--min", "f1=0.5"], "cannot be compared with those of version"),
        ("labels", {}, ["--max-drop", "r2=0.1"], "the version has no r2 on these rows; it has: accuracy, f1"),
        ("labels", {}, ["--min", "rmse=1", "--min", "f1=0"], "the version has no rmse"),
        ("numbers", {}, ["--min", "r2=0", "--max-drop", "mae=1"], "version 1 has no mae on these rows"),
        ("production", {}, ["--max-drop", "f1=0.1"], "version 1 is itself in production"),
    ],
)
def test_rows_and_thresholds_that_do_not_go_with_a_version_are_told_in_one_line(
    of_kind: dict[str, str],
    validate: Validate,
    data: Path,
    kind: str,
    change: dict[str, Any],
    arguments: list[str],
    part: str,
):
    rows = pd.read_csv(data)
    for column, value in change.items():
        rows[column] = rows[column].astype(object)
        rows.loc[3:9, column] = value
    rows.to_csv(data, index=False)
    code, out, err = validate(of_kind[kind], *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err


def test_where_nothing_is_in_production_the_comparison_is_said_to_be_left_out(
    versions: Registry, validate: Validate
):
    code, out, _ = validate("2", "--alias", "blue", "--min", "f1=0", "--max-drop", "f1=0.1")
    assert code == 0
    assert out.splitlines()[-1] == (
        "wine@blue is not set, so there is nothing to compare with: --max-drop was not checked"
    )
    code, _, err = validate("2", "--alias", "blue", "--max-drop", "f1=0.1")
    assert code == 2
    assert "there is nothing to check: wine@blue is not set" in err
