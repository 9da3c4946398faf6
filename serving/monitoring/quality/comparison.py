"""Whether a challenger is better than the champion: a verdict that is valid at every look.

A t-test is valid for one look. Repeated until it says yes, it says so in the end. A confidence sequence contains the true
difference at all looks at once, with the given confidence.
"""

import math
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Outcome = Literal["better", "worse", "not yet"]

N_SHARPEST = 1_000
"""Labels at which the interval is narrowest, compared with that of one look."""

MIN_LABELS = 100
"""Labels of each version below which there is no verdict: the sequence is asymptotic."""

MAX_LABELS = 10**9
"""A difference that needs more labels is not foreseeable."""

PRECISION = 100
"""Labels that are missing are computed to one part in this many."""


class Moments(NamedTuple):
    """All that a comparison needs of a version's rows."""

    n: int
    mean: float
    variance: float
    """Divided by n."""

    @staticmethod
    def of(values: npt.NDArray[np.float64]) -> "Moments":
        """Returns those of one number per row; zeros without rows."""
        if not len(values):
            return Moments(0, 0.0, 0.0)
        return Moments(len(values), float(values.mean()), float(values.var()))


class Verdict(NamedTuple):
    """What is known about the difference of a metric's means, challenger minus champion."""

    outcome: Outcome
    difference: float
    low: float
    high: float
    """The interval that contains the difference at all looks."""
    n_labels: int
    """Pairs, or labels of both versions."""
    n_more: int | None
    """About how many more until it is clear, if the difference is as it looks now; 0 if it is clear, None if that is
    not foreseeable."""


def compare_pairs(differences: Moments, *, lower_is_better: bool, confidence: float = 0.95) -> Verdict:
    """Returns the verdict if both versions answered the same rows.

    Args:
        differences: of challenger minus champion, one for each row.
        lower_is_better: whether the metric is an error.
        confidence: that no verdict of any look is wrong, 0 to 1.
    """
    return _judge(
        differences.mean,
        differences.variance,
        differences.n,
        differences.n,
        1 - confidence,
        lower_is_better=lower_is_better,
    )


def compare_groups(
    champion: Moments, challenger: Moments, *, lower_is_better: bool, confidence: float = 0.95
) -> Verdict:
    """Returns the verdict if each row was assigned to one of the versions at random.

    Each version's variance is at least that of all rows together. Otherwise a version with few labels and no error yet
    would look certain.

    Args:
        champion: of the metric, one number per row.
        challenger: the same.
        lower_is_better: whether the metric is an error.
        confidence: that no verdict of any look is wrong, 0 to 1.
    """
    n = champion.n + challenger.n
    difference = challenger.mean - champion.mean
    fewest = min(champion.n, challenger.n)
    if not fewest:
        return Verdict("not yet", 0.0, -math.inf, math.inf, n, None)
    shares = champion.n / n, challenger.n / n
    within = shares[0] * champion.variance + shares[1] * challenger.variance
    pooled = within + shares[0] * shares[1] * difference**2
    # Variance of one observation of the difference; its mean over n has that of the two means together.
    variance = sum(
        max(of.variance, pooled) / share for of, share in zip((champion, challenger), shares, strict=True)
    )
    return _judge(difference, variance, n, fewest, 1 - confidence, lower_is_better=lower_is_better)


def margin(n: float, alpha: float) -> float:
    """Returns half the width of the confidence sequence of a mean, in standard deviations.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Time-uniform central limit theory and asymptotic confidence
    sequences, Annals of Statistics, 2024 (arXiv:2103.06476), theorem 2.2; its ρ² is chosen for `N_SHARPEST`.
    """
    scaled = n * _optimum(alpha) / N_SHARPEST
    return math.sqrt((scaled + 1) / scaled * math.log((scaled + 1) / alpha**2) / n)


@cache
def _optimum(alpha: float) -> float:
    """Returns n·ρ² that makes the margin at n smallest: the solution of x = log((x + 1) / α²)."""
    x = 1.0
    for _ in range(30):  # a contraction by 1 / (x + 1)
        x = math.log((x + 1) / alpha**2)
    return x


def _judge(
    difference: float, variance: float, n: int, fewest: int, alpha: float, *, lower_is_better: bool
) -> Verdict:
    if not n:
        return Verdict("not yet", 0.0, -math.inf, math.inf, 0, None)
    deviation = math.sqrt(variance)
    half = deviation * margin(n, alpha)
    outcome: Outcome = "not yet"
    if fewest >= MIN_LABELS and abs(difference) > half:
        outcome = "better" if (difference < 0) == lower_is_better else "worse"
    n_more = _labels_needed(difference, deviation, n, fewest, alpha) if outcome == "not yet" else 0
    return Verdict(outcome, difference, difference - half, difference + half, n, n_more)


def _labels_needed(difference: float, deviation: float, n: int, fewest: int, alpha: float) -> int | None:
    """Returns how many more labels until the margin is below the difference."""
    low = high = math.ceil(n * max(MIN_LABELS / fewest, 1))
    while deviation * margin(high, alpha) >= abs(difference):
        low, high = high, 2 * high
        if high > MAX_LABELS:
            return None
    while high > low + max(low // PRECISION, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if deviation * margin(middle, alpha) >= abs(difference) else (low, middle)
    return high - n
