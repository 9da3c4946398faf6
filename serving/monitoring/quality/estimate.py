"""Accuracy before the truth is known, from probabilities that were calibrated on rows whose truth is.

The idea is that of NannyML's confidence-based performance estimation: a row with a calibrated probability of 0.8 is right
in 80 % of the cases. It sees rows that the model is less sure of. It does not see a relation of inputs and truth that has
changed; only labels show that.
"""

import math
from typing import NamedTuple

import numpy as np

from serving.monitoring.quality.answers import Classified, Codes, Floats

MIN_BIN_LABELS = 50
"""Labels in a bin of the calibration."""

MAX_BINS = 10
"""Bins of a predicted class."""

MAX_ERRORS = 2.0
"""Standard errors by which an estimate that holds may be off: more in one of 20."""


class Estimate(NamedTuple):
    """Expected accuracy of rows without truth."""

    accuracy: float
    standard_error: float
    """Of the accuracy that these rows will have: from few labels, and from chance in the rows."""
    n_rows: int
    n_labels: int
    """Rows that the probabilities were calibrated on."""


class Held(NamedTuple):
    """How well an estimate held."""

    accuracy: float
    """Of the rows whose truth has become known."""
    n_labels: int
    difference: float
    """Accuracy minus estimate."""
    standard_error: float
    """Of the difference, if nothing but chance separates them."""

    @property
    def has_held(self) -> bool:
        """True if chance explains the difference."""
        return abs(self.difference) <= MAX_ERRORS * self.standard_error


def estimate_accuracy(known: Classified, labels: Codes, confidences: Floats) -> Estimate | None:
    """Returns the expected accuracy of rows without truth; None if there are too few rows to tell.

    Confidences are calibrated for each predicted class, by bins of equally many labels. A class with too few labels shares
    the bins of all. Source: histogram binning; Zadrozny, Elkan, Obtaining Calibrated Probability Estimates, 2001.

    Args:
        known: rows whose truth is known.
        labels: predicted for the other rows, as positions in the classes.
        confidences: their probabilities; rows without one are left out.
    """
    if known.confidences is None:
        return None
    known = known.where(~np.isnan(known.confidences))
    usable = ~np.isnan(confidences)
    labels, confidences = labels[usable], confidences[usable]
    if len(known) < MIN_BIN_LABELS or not len(labels):
        return None
    expected = from_rows = from_labels = 0.0
    counts = np.bincount(known.labels, minlength=len(known.classes))
    common = [code for code, n in enumerate(counts) if n >= MIN_BIN_LABELS]
    groups = [(known.labels == code, labels == code) for code in common]
    groups.append((np.ones(len(known), dtype=np.bool_), ~np.isin(labels, common)))
    for of_known, of_rows in groups:
        part = known.where(of_known)
        assert part.confidences is not None
        edges = _edges(part.confidences)
        n_labels, n_right, n_rows = (
            np.bincount(np.searchsorted(edges, values, side="right"), weights, len(edges) + 1)
            for values, weights in (
                (part.confidences, None),
                (part.confidences, part.are_right.astype(np.float64)),
                (confidences[of_rows], None),
            )
        )
        share = n_rows / len(labels)
        expected += float((share * n_right / n_labels).sum())
        # One right and one wrong label more: a bin without errors is not certain.
        smoothed = (n_right + 1) / (n_labels + 2)
        spread = smoothed * (1 - smoothed)
        from_labels += float((share**2 * spread / n_labels).sum())
        from_rows += float((share * spread).sum()) / len(labels)
    return Estimate(expected, math.sqrt(from_rows + from_labels), len(labels), len(known))


def check_estimate(estimate: Estimate, now_known: Classified) -> Held | None:
    """Returns how well an estimate held; None if no truth has come.

    Args:
        estimate: made before.
        now_known: those of its rows whose truth has come; chosen by chance, not by the answer.
    """
    n = len(now_known)
    if not n:
        return None
    accuracy = float(now_known.are_right.mean())
    expected = min(max(estimate.accuracy, 1 / (n + 2)), 1 - 1 / (n + 2))
    of_the_rest = expected * (1 - expected) * max(1 / n - 1 / estimate.n_rows, 0)
    error = math.sqrt(estimate.standard_error**2 + of_the_rest)
    return Held(accuracy, n, accuracy - estimate.accuracy, error)


def hold_out(known: Classified, order: Codes) -> dict[str, float | bool] | None:
    """Returns how well the older half of the labels would have predicted the accuracy of the newer half.

    Args:
        known: rows with truth.
        order: positions of the rows, the oldest first.

    Returns:
        `estimate`, `accuracy`, `standard_error` of their difference, and `has_held`; None if there are too few rows.
    """
    is_newer = np.zeros(len(known), dtype=np.bool_)
    is_newer[order[len(order) // 2 :]] = True
    newer = known.where(is_newer)
    if newer.confidences is None:
        return None
    newer = newer.where(~np.isnan(newer.confidences))
    assert newer.confidences is not None
    before = estimate_accuracy(known.where(~is_newer), newer.labels, newer.confidences)
    held = None if before is None else check_estimate(before, newer)
    if before is None or held is None:
        return None
    return {
        "estimate": before.accuracy,
        "accuracy": held.accuracy,
        "standard_error": held.standard_error,
        "has_held": held.has_held,
    }


def _edges(confidences: Floats) -> Floats:
    """Returns what separates the bins; ties are in one bin."""
    ordered = np.sort(confidences)
    n_bins = min(len(ordered) // MIN_BIN_LABELS, MAX_BINS)
    edges = ordered[[len(ordered) * position // n_bins for position in range(1, n_bins)]]
    return np.unique(edges[edges > ordered[0]])
