"""Scores a version's answers, and checks the scores against thresholds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.validation_record import Check
from serving.runtime import Output

CLASSIFICATION = ("accuracy", "f1", "log_loss", "roc_auc")
REGRESSION = ("r2", "rmse", "mae")
LOWER_IS_BETTER = frozenset({"log_loss", "rmse", "mae"})

MIN_SLICE_ROWS = 30
"""A slice with fewer rows is not judged."""

WHOLE = "all rows"


def score_output(target: pd.Series, output: Output, classes: Sequence[Any] | None) -> dict[str, float]:
    """Returns the metrics of answers; f1 is the mean over the classes, roc_auc that of each class against the rest.

    Args:
        target: the right answers.
        output: the model's answers for the same rows.
        classes: in the order of the probabilities' columns.
    """
    if output.labels is None:
        assert output.values is not None
        values = np.asarray(output.values, dtype=np.float64)
        return {
            "r2": float(r2_score(target, values)),
            "rmse": float(root_mean_squared_error(target, values)),
            "mae": float(mean_absolute_error(target, values)),
        }
    right = target.to_numpy(dtype=object).tolist()
    scores = {
        "accuracy": float(accuracy_score(right, output.labels.tolist())),
        "f1": float(f1_score(right, output.labels.tolist(), average="macro")),
    }
    if output.probabilities is None or classes is None or len(set(right)) < 2:
        return scores
    return scores | _score_probabilities(right, output.probabilities, list(classes))


def _score_probabilities(
    right: list[Any], probabilities: npt.NDArray[Any], classes: list[Any]
) -> dict[str, float]:
    position = {label: index for index, label in enumerate(classes)}
    if any(label not in position for label in right):
        return {}
    columns = np.array([position[label] for label in right])
    if len(classes) == 2:
        area = roc_auc_score(columns == 1, probabilities[:, 1])
    else:
        there = np.unique(columns)
        area = np.mean([roc_auc_score(columns == column, probabilities[:, column]) for column in there])
    loss = log_loss(columns, probabilities, labels=range(len(classes)))
    return {"log_loss": float(loss), "roc_auc": float(area)}


class Rules(NamedTuple):
    """Thresholds by metric."""

    at_least: Mapping[str, float]
    at_most: Mapping[str, float]
    max_drop: Mapping[str, float]
    """How much worse than the version in production; for errors, how much higher."""


def check_rules(
    rules: Rules, found: Mapping[str, float], before: Mapping[str, float] | None, before_name: str
) -> None:
    """Rejects thresholds that cannot be checked.

    Args:
        rules: the thresholds.
        found: the metrics of the version, of all rows.
        before: those of the version that it is compared with; None if there is none.
        before_name: that version, or why there is none, for messages.

    Raises:
        LifecycleError: there is no such metric, or nothing to compare with and no other threshold.
    """
    for metric in (*rules.at_least, *rules.at_most, *rules.max_drop):
        if metric not in found:
            raise LifecycleError(
                f"the version has no {metric} on these rows; it has: {', '.join(found) or 'none'}"
            )
    if before is None:
        if not (rules.at_least or rules.at_most):
            raise LifecycleError(f"there is nothing to check: {before_name}; give --min or --max")
        return
    for metric in rules.max_drop:
        if metric not in before:
            raise LifecycleError(
                f"{before_name} has no {metric} on these rows; it has: {', '.join(before) or 'none'}"
            )


def judge(
    scores: Mapping[str, Mapping[str, float]], before: Mapping[str, Mapping[str, float]], rules: Rules
) -> list[Check]:
    """Returns all checks; a metric that could not be computed fails its check.

    Args:
        scores: by slice, `WHOLE` among them, and metric.
        before: the same of the version in production; empty if there is none.
        rules: apply to all rows and to each slice.
    """
    checks = []
    for where, found in scores.items():
        old = before.get(where, {})
        for metric, limit in rules.at_least.items():
            value = found.get(metric)
            is_met = value is not None and value >= limit
            checks.append(Check(where, metric, f"at least {limit:g}", value, old.get(metric), is_met))
        for metric, limit in rules.at_most.items():
            value = found.get(metric)
            is_met = value is not None and value <= limit
            checks.append(Check(where, metric, f"at most {limit:g}", value, old.get(metric), is_met))
        for metric, limit in rules.max_drop.items() if before else ():
            value, was = found.get(metric), old.get(metric)
            if was is None:
                continue  # it had no such metric in this slice
            checks.append(
                Check(
                    where,
                    metric,
                    f"worse by at most {limit:g}",
                    value,
                    was,
                    _is_within(metric, value, was, limit),
                )
            )
    return checks


def _is_within(metric: str, value: float | None, was: float, limit: float) -> bool:
    if value is None:
        return False
    worse = value - was if metric in LOWER_IS_BETTER else was - value
    # Numbers that are equal except for rounding are not worse.
    return worse <= limit + 1e-12


def parse_thresholds(texts: Sequence[str]) -> dict[str, float]:
    """Returns the thresholds of options such as `accuracy=0.8`.

    Raises:
        LifecycleError: one is malformed, or names an unknown metric.
    """
    found = {}
    for text in texts:
        metric, _, number = text.partition("=")
        if metric not in (*CLASSIFICATION, *REGRESSION):
            known = ", ".join((*CLASSIFICATION, *REGRESSION))
            raise LifecycleError(f"no metric {metric!r} in {text!r}; there are: {known}")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not math.isfinite(limit):
            raise LifecycleError(f"{text!r} is not a metric with a number, such as accuracy=0.8")
        found[metric] = limit
    return found
