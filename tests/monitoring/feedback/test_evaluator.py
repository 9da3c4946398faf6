"""Quality, against scikit-learn's metrics and hand calculations."""

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn import metrics

from serving.monitoring.feedback.evaluator import evaluate
from serving.monitoring.feedback.exposition import exposition
from serving.monitoring.feedback.store import Store, Truth, open_store
from serving.monitoring.quality.comparison import margin
from serving.monitoring.quality.judgement import Quality, Summary
from tests.monitoring.feedback.told import DAY, NOW, answer, number

CLASSES = ["no", "yes"]
BOTH = (("7", "champion"), ("8", "shadow"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store("sqlite", tmp_path)


def add(
    store: Store,
    n_rows: int,
    *,
    skill: float = 1.0,
    n_told: int | None = None,
    seed: int = 0,
    name: str = "r",
    days: float = 0.5,
    **more: Any,
) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Adds answers of a version that knows a part of the truth; returns truths and probabilities of yes."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=n_rows)
    truths = np.where(random.random(n_rows) < 1 / (1 + np.exp(-2 * signal)), "yes", "no").tolist()
    noise = np.random.default_rng(seed + 1).normal(size=n_rows)
    scores = 1 / (1 + np.exp(-2 * (skill * signal + (1 - skill) * noise)))
    store.add_answers(
        answer(
            f"{name}{i}",
            label=CLASSES[int(score >= 0.5)],
            score=score,
            probabilities=json.dumps(dict(zip(CLASSES, (1 - score, score), strict=True))),
            slices=json.dumps({"region": ["east", "west"][i % 2]}),
            time=NOW - DAY * days * (n_rows - i) / n_rows,
            **more,
        )
        for i, score in enumerate(scores.tolist())
    )
    told = truths[: n_rows if n_told is None else n_told]
    store.add_truths("churn", [Truth(f"{name}{i}", 0, truth) for i, truth in enumerate(told)], [])
    return truths, scores


def evaluated(store: Store, *columns: str) -> dict[str, Any]:
    found = evaluate(store, "churn", columns, NOW - 30 * DAY, NOW)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def window(found: dict[str, Any], name: str = "30d") -> list[dict[str, Any]]:
    (versions,) = (one["versions"] for one in found["windows"] if one["window"] == name)
    return list(versions)


def test_metrics_of_a_classifier_are_those_of_scikit_learn(store: Store):
    truths, scores = add(store, 500)
    found = evaluated(store, "region")
    (of,) = window(found)
    labels = [CLASSES[int(score >= 0.5)] for score in scores]
    assert (of["version"], of["role"], of["rows"], of["labels"]) == ("7", "champion", 500, 500)
    expected = {
        "accuracy": metrics.accuracy_score(truths, labels),
        "precision": metrics.precision_score(truths, labels, average="macro"),
        "recall": metrics.recall_score(truths, labels, average="macro"),
        "f1": metrics.f1_score(truths, labels, average="macro"),
        "log_loss": metrics.log_loss(truths, np.column_stack([1 - scores, scores])),
        "roc_auc": metrics.roc_auc_score(truths, scores),
    }
    assert {name: of["metrics"][name] for name in expected} == pytest.approx(expected)
    assert of["classes"]["yes"]["recall"] == pytest.approx(
        metrics.recall_score(truths, labels, pos_label="yes")
    )
    assert sum(part["n_rows"] for part in of["calibration"]["bins"]) == 500
    east = [i for i in range(500) if i % 2 == 0]
    (slice_,) = (one for one in of["slices"] if one["slice"] == "region = east")
    assert slice_["labels"] == 250
    assert slice_["metrics"]["accuracy"] == pytest.approx(
        metrics.accuracy_score([truths[i] for i in east], [labels[i] for i in east])
    )
    text = exposition(found).decode()
    labelled = 'model_name="churn",model_version="7",role="champion",window="30d"'
    assert f"model_accuracy{{{labelled}}} {of['metrics']['accuracy']!r}\n" in text
    assert f"model_labels{{{labelled}}} 500.0\n" in text


def test_metrics_of_a_regression(store: Store):
    random = np.random.default_rng(1)
    truths = random.normal(size=300)
    values = truths + random.normal(size=300) / 2
    store.add_answers(number(f"n{i}", value) for i, value in enumerate(values.tolist()))
    told = [Truth(f"n{i}", 0, repr(truth)) for i, truth in enumerate(truths.tolist())]
    store.add_truths("churn", told, [])
    found = evaluated(store)
    (of,) = window(found)
    assert of["metrics"] == pytest.approx(
        {
            "rmse": metrics.root_mean_squared_error(truths, values),
            "mae": metrics.mean_absolute_error(truths, values),
            "r2": metrics.r2_score(truths, values),
        }
    )
    assert b"model_rmse{" in exposition(found)


def test_windows_are_of_the_times_of_the_answers(store: Store):
    for days, version in ((0.5, "9"), (3, "8"), (20, "7"), (40, "6")):
        store.add_answers([answer(f"d{days}", version=version, time=NOW - days * DAY)])
    store.add_truths("churn", [Truth(f"d{days}", 0, "yes") for days in (0.5, 3, 20, 40)], [])
    found = evaluated(store)
    assert {one["window"]: [of["version"] for of in one["versions"]] for one in found["windows"]} == {
        "1d": ["9"],
        "7d": ["8", "9"],
        "30d": ["7", "8", "9"],
        "all": ["7", "8", "9"],
    }
    assert [(one["version"], one["labels"]) for one in found["over_time"]] == [("7", 1), ("8", 1), ("9", 1)]
    assert found["over_time"][2]["date"] == "2023-11-14"
    assert found["feedback"] == {"truths": 4, "unknown": 0}


def test_estimates_what_is_not_told_and_checks_the_estimate(store: Store):
    truths, scores = add(store, 4_000, n_told=2_000)
    (of,) = window(evaluated(store))
    estimate = of["estimate"]
    assert (estimate["rows"], estimate["labels"]) == (2_000, 2_000)
    right = np.mean(
        [
            CLASSES[int(score >= 0.5)] == truth
            for score, truth in zip(scores[2_000:], truths[2_000:], strict=True)
        ]
    )
    assert abs(estimate["accuracy"] - right) < 3 * estimate["standard_error"]
    assert estimate["check"]["has_held"]


def test_a_better_challenger_is_found_and_a_worse_one(store: Store):
    add(store, 500, name="old", days=20)
    add(store, 3_000, skill=0.5)
    add(store, 2_000, skill=1.0, name="b", seed=2, role="challenger", version="8")
    add(store, 2_000, skill=0.0, name="w", seed=4, role="challenger", version="9")
    add(store, 150, skill=0.5, name="n", seed=6, role="challenger", version="10")
    found = {one["challenger"]: one for one in evaluated(store)["comparisons"]}
    assert {version: one["metrics"]["accuracy"]["verdict"] for version, one in found.items()} == {
        "8": "better",
        "9": "worse",
        "10": "not yet",
    }
    eighth = found["8"]
    assert (eighth["champion"], eighth["is_paired"]) == ("7", False)
    judged = eighth["metrics"]["accuracy"]
    # Of the champion's answers, only those of the half day in which the challenger answered too: 1 of 40 of the old ones.
    assert judged["champion"]["n"] == pytest.approx(3_000 + 500 / 40, abs=3)
    assert judged["challenger"]["n"] == pytest.approx(2_000, abs=3)
    assert judged["value"] == pytest.approx(judged["challenger"]["mean"] - judged["champion"]["mean"])
    text = exposition(evaluated(store)).decode()
    assert 'champion_version="7",role="challenger",metric="accuracy"} 1.0' in text
    assert 'champion_version="7",role="challenger",metric="accuracy"} -1.0' in text


def test_a_shadow_is_compared_in_pairs(store: Store):
    for i in range(400):
        shadow = answer(
            f"r{i}", role="shadow", version="8", label="no", time=NOW - 400 + i + 0.1
        )  # it answers later
        store.add_answers([answer(f"r{i}", time=NOW - 400 + i), shadow])
    store.add_answers([answer("alone")])
    # The champion says yes, the shadow no: the shadow is right in 3 of 4.
    told = [Truth(f"r{i}", 0, "no" if i % 4 else "yes") for i in range(400)]
    store.add_truths("churn", [*told, Truth("alone", 0, "yes")], [])
    (found,) = evaluated(store)["comparisons"]
    judged = found["metrics"]["accuracy"]
    assert (found["role"], found["is_paired"], judged["verdict"]) == ("shadow", True, "better")
    assert judged["champion"] == {"n": 400, "mean": 0.25, "variance": 0.1875}
    assert judged["challenger"] == {"n": 400, "mean": 0.75, "variance": 0.1875}
    assert judged["difference"] == {"n": 400, "mean": 0.5, "variance": 0.75}


def test_the_champion_is_the_one_that_answered_last(store: Store):
    add(store, 200, version="6", days=20)
    store.add_answers([answer("new", version="7", time=NOW - 1), answer("c", version="8", role="challenger")])
    store.add_truths("churn", [Truth("new", 0, "yes"), Truth("c", 0, "yes")], [])
    assert [(one["champion"], one["challenger"]) for one in evaluated(store)["comparisons"]] == [("7", "8")]


def test_truths_that_the_model_cannot_predict_are_shown(store: Store):
    store.add_answers(answer(f"r{i}") for i in range(4))
    store.add_truths("churn", [Truth(f"r{i}", 0, ["yes", "Yes", "Yes", "YES"][i]) for i in range(4)], [])
    (of,) = window(evaluated(store))
    assert of["unexpected_labels"] == {"YES": 1, "Yes": 2}
    assert set(of["classes"]) == {"yes"}
    assert of["metrics"]["accuracy"] == 0.25


@pytest.mark.parametrize(("truth", "value"), [("1e308", 1.0), ("1", 1e308), ("1e70", 1.0), ("1", math.inf)])
def test_one_huge_number_leaves_verdicts_readable(store: Store, truth: str, value: float):
    store.add_answers(number(f"r{i}", 1.0, version=v, role=of) for i in range(3) for v, of in BOTH)
    store.add_answers([number("huge", value, version=v, role=of) for v, of in BOTH])
    store.add_truths("churn", [Truth(request_id, 0, "2") for request_id in ("r0", "r1", "r2")], [])
    store.add_truths("churn", [Truth("huge", 0, truth)], [])
    quality = msgspec.json.decode(msgspec.json.encode(evaluated(store)), type=Quality)
    (comparison,) = quality.of("7", "8")
    assert comparison.metrics["mse"].difference == Summary(4 if truth == "1e70" else 3, 0.0, 0.0)


def test_a_comparison_has_a_fixed_start_and_each_further_period_half_the_error(store: Store):
    keep = 30 * DAY
    found = []
    for days in (29, 31, 95):
        now = NOW + days * DAY
        for i in range(200):
            request = f"{days}-{i}"
            times = {"time": now - DAY * (200 - i) / 200}
            store.add_answers(
                [answer(request, **times), answer(request, role="shadow", version="8", label="no", **times)]
            )
            store.add_truths("churn", [Truth(request, 0, "no" if i % 4 else "yes")], [])
        if days == 29:  # the comparison begins
            store.add_answers([answer("first", role="shadow", version="8", label="no", time=NOW)])
            store.add_answers([answer("first", time=NOW)])
        (one,) = evaluate(store, "churn", (), now - keep, now)["comparisons"]
        judged = one["metrics"]["accuracy"]
        found.append((one["period"], judged["difference"]["n"]))
        half = (judged["high"] - judged["low"]) / 2
        alpha = 0.05 / 2 ** one["period"]
        deviation = judged["difference"]["variance"] ** 0.5
        assert half == pytest.approx(deviation * margin(judged["difference"]["n"], alpha))
    assert found == [(0, 200), (1, 200), (3, 200)]


@pytest.mark.parametrize(
    ("answers", "truth"),
    [
        ([], "yes"),
        ([answer()], "yes"),
        ([answer(probabilities=None, score=None)], "yes"),
        ([answer(probabilities=None, label="17", score=0.4)], "17"),
        ([answer(slices="{}")], "yes"),
        ([number("r", 1.5)], "cheap"),
        ([number("r", 1.5)], "1.5"),
        ([answer(), answer(role="shadow", version="8", label=None, value=2.0)], "yes"),
        ([answer(probabilities='{"no":null,"yes":null}')], "yes"),
    ],
)
def test_few_or_odd_answers_are_no_trouble(store: Store, answers: list[Any], truth: str):
    store.add_answers(answers)
    store.add_truths("churn", [Truth("r", 0, truth)], [])
    exposition(evaluated(store, "region"))
