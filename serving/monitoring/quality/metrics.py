"""Metrics of answers whose truth is known. A metric that these rows do not have is left out."""

import math
from typing import Any

import numpy as np

from serving.monitoring.quality.answers import Answers, Classified, Codes, Floats, Mask, Regressed

LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error", "rmse", "mae", "mse"})

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Floor of the logarithm's argument. Source: `sklearn.metrics.log_loss`."""

MEANS = {"classification": ("accuracy", "log_loss"), "regression": ("mae", "mse")}
"""Metrics that are a mean over rows, so that two versions can be compared by them; the first is the default."""


def score(answers: Answers) -> dict[str, float]:
    """Returns the metrics of a classification or regression; empty without rows."""
    if not len(answers):
        return {}
    return _score_classes(answers) if isinstance(answers, Classified) else _score_values(answers)


def score_classes(answers: Classified) -> dict[str, dict[str, float]]:
    """Returns precision, recall, F1 and the number of labels by class.

    Precision is 0 if the class was never predicted, recall is 0 if it never occurred: as in scikit-learn.
    """
    hits, predicted, occurred = _count(answers)
    return {
        name: {
            "precision": float(hits[code] / max(predicted[code], 1)),
            "recall": float(hits[code] / max(occurred[code], 1)),
            "f1": float(2 * hits[code] / max(predicted[code] + occurred[code], 1)),
            "labels": int(occurred[code]),
        }
        for code, name in enumerate(answers.classes)
        if predicted[code] or occurred[code]
    }


def row_scores(answers: Answers, metric: str) -> Floats:
    """Returns what each row contributes to a metric of `MEANS`; NaN if it has no probabilities.

    Args:
        answers: with their truth.
        metric: accuracy, log_loss, mae or mse.
    """
    if isinstance(answers, Regressed):
        errors = np.abs(answers.values - answers.truths)
        return errors if metric == "mae" else errors * errors
    if metric == "accuracy":
        return answers.are_right.astype(np.float64)
    losses = np.full(len(answers), np.nan)
    usable = _have_probabilities(answers)
    if answers.probabilities is not None:
        right = answers.probabilities[usable, answers.truths[usable]]
        losses[usable] = -np.log(np.clip(right, SMALLEST_PROBABILITY, 1))
    return losses


def area_under_curve(are_positive: Mask, scores: Floats) -> float | None:
    """Returns the area under the ROC curve, ties counted as half; None if all rows are of one kind.

    Source: the Mann-Whitney statistic, from mid-ranks.
    """
    n_positive = int(are_positive.sum())
    n_negative = len(are_positive) - n_positive
    if not n_positive or not n_negative:
        return None
    _, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[position]
    return float((ranks[are_positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _score_classes(answers: Classified) -> dict[str, float]:
    by_class = score_classes(answers).values()
    found = {"accuracy": float(answers.are_right.mean())} | {
        name: float(np.mean([of[name] for of in by_class])) for name in ("precision", "recall", "f1")
    }
    losses = row_scores(answers, "log_loss")
    if not np.isnan(losses).all():
        found["log_loss"] = float(np.nanmean(losses))
    usable = _have_probabilities(answers)
    if answers.probabilities is not None and usable.any():
        truths, probabilities = answers.truths[usable], answers.probabilities[usable]
        columns = [1] if answers.n_known == 2 else range(answers.n_known)
        areas = [area_under_curve(truths == column, probabilities[:, column]) for column in columns]
        there = [area for area in areas if area is not None]
        if there:
            found["roc_auc"] = float(np.mean(there))
    return found


def _score_values(answers: Regressed) -> dict[str, float]:
    errors = answers.values - answers.truths
    found = {"rmse": math.sqrt(np.mean(errors**2)), "mae": float(np.abs(errors).mean())}
    spread = float(((answers.truths - answers.truths.mean()) ** 2).sum())
    if spread > 0:
        found["r2"] = 1 - float((errors**2).sum()) / spread
    return found


def _have_probabilities(answers: Classified) -> Mask:
    """True for rows with probabilities of which one is that of the truth."""
    if answers.probabilities is None:
        return np.zeros(len(answers), dtype=np.bool_)
    return (answers.truths < answers.n_known) & ~np.isnan(answers.probabilities).any(axis=1)


def _count(answers: Classified) -> tuple[Codes, Codes, Codes]:
    """Returns by class the rows that are right, predicted, and true."""

    def by_class(codes: Any) -> Codes:
        return np.bincount(codes, minlength=len(answers.classes)).astype(np.int64)

    return (
        by_class(answers.truths[answers.are_right]),
        by_class(answers.labels),
        by_class(answers.truths),
    )
