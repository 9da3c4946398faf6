"""Which estimator is chosen, and when a model is no better than none."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from scripts.training.evaluation import (
    T_99,
    Labelled,
    Scores,
    choose,
    cross_validate,
    sample_rows,
    score_baseline,
    why_no_better,
)


def scores(mean, spread, metric="roc_auc"):
    return Scores({metric: mean}, {metric: spread})


def test_quickest_estimator_within_a_standard_error_of_the_best_is_chosen():
    close = {"linear": scores(0.89, 0.01), "boosting": scores(0.85, 0.01), "forest": scores(0.895, 0.0224)}
    assert choose(close, "classification")[0] == "linear"  # 0.895 - 0.0224 / √5 = 0.885
    apart = close | {"linear": scores(0.88, 0.01)}
    assert choose(apart, "classification") == ("forest", "the best roc_auc")


@pytest.mark.parametrize(
    ("task", "mean", "spread", "is_better"),
    [
        ("classification", 0.53, 0.01, True),  # 0.03 / (0.01 √0.45) = 4.5, beyond t = 3.75
        ("classification", 0.53, 0.02, False),
        ("classification", 0.5, 0.0, False),
        ("regression", 0.03, 0.01, True),
        ("regression", -0.2, 0.01, False),
    ],
)
def test_model_is_better_if_its_score_is_beyond_chance(task, mean, spread, is_better):
    metric = "roc_auc" if task == "classification" else "r2"
    assert (why_no_better(task, scores(mean, spread, metric)) == "") == is_better


def test_threshold_is_that_of_students_t():
    assert pytest.approx(stats.t.ppf(0.99, 4), abs=1e-3) == T_99


def test_models_of_chance_seldom_pass_and_weak_ones_do():
    """At 1 in 100, more than 2 of 15 pass once in 2,500 such tests."""
    random = np.random.default_rng(0)
    passed = {0.0: 0, 1.0: 0}
    for strength in passed:
        for _ in range(15):
            inputs = pd.DataFrame(random.normal(size=(300, 3)))
            target = pd.Series(strength * inputs[0] + random.normal(size=300) > 0)
            found = cross_validate(
                lambda: make_pipeline(LogisticRegression()), Labelled("classification", inputs, target), 0
            )
            passed[strength] += why_no_better("classification", found) == ""
    assert passed[0.0] <= 2
    assert passed[1.0] == 15


def test_scores_of_a_regression_are_in_its_units():
    x = np.arange(200.0)
    rows = Labelled("regression", pd.DataFrame({"x": x}), pd.Series(3 * x + np.where(x % 2, 1.0, -1.0)))
    found = cross_validate(lambda: make_pipeline(Ridge(1e-9)), rows, 0)
    assert found.mean["mae"] == pytest.approx(1.0, abs=0.05)
    # Of 3x over 0 … 199, whose standard deviation is 3 √((200² - 1) / 12).
    assert score_baseline(rows)["baseline_rmse"] == pytest.approx(3 * np.sqrt((200**2 - 1) / 12), rel=1e-3)


def test_large_tables_are_sampled_with_the_share_of_each_class(monkeypatch):
    monkeypatch.setattr("scripts.training.evaluation.MAX_EVALUATED_ROWS", 100)
    target = pd.Series([True] * 100 + [False] * 900)
    sample = sample_rows(Labelled("classification", pd.DataFrame({"x": range(1000)}), target), 0)
    assert len(sample.inputs) == 100
    assert sample.target.sum() == 10
    assert (sample.target == (sample.inputs["x"] < 100)).all()
