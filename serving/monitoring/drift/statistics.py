"""How far two distributions are apart, and how far chance alone takes them.

Workers have no SciPy; each function is compared with SciPy's in the tests.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PSI_LIMIT = 0.25
"""Population stability index of a significant shift. Source: credit scoring's rule of thumb (Siddiqi, Credit Risk
Scorecards, 2006); it says nothing about chance, hence `noise`."""

SIGNIFICANCE = 0.001
"""Probability of a false alarm by chance."""

MIN_ROWS = 500
"""Rows below which nothing is called drift."""


def shares(counts: npt.ArrayLike) -> Floats:
    """Returns the share of each bin; half a row is added to each, so that logarithms stay finite (Jeffreys' prior)."""
    smoothed = np.asarray(counts, dtype=np.float64) + 0.5
    return np.asarray(smoothed / smoothed.sum(), dtype=np.float64)


def population_stability(now: Floats, reference: Floats) -> float:
    """Returns the population stability index, 0 or more; natural logarithm."""
    return float(((now - reference) * np.log(now / reference)).sum())


def jensen_shannon(now: Floats, reference: Floats) -> float:
    """Returns the Jensen-Shannon distance, 0 to 0.833: the square root of the divergence with natural logarithm.

    The same as `scipy.spatial.distance.jensenshannon` by default.
    """
    middle = (now + reference) / 2
    divergence = (now * np.log(now / middle) + reference * np.log(reference / middle)).sum() / 2
    return math.sqrt(max(float(divergence), 0.0))


def total_variation(now: Floats, reference: Floats) -> float:
    """Returns the total variation distance, 0 to 1: the share of rows that would have to change their bin."""
    return float(np.abs(now - reference).sum() / 2)


def noise_factor(n_rows: float, n_reference: float) -> float:
    """Returns what a χ² of `bins - 1` degrees is multiplied by to get the index of equal distributions.

    Source: Yurdakul, Statistical Properties of Population Stability Index, 2018.
    """
    return 1 / n_rows + 1 / n_reference


def chi_squared_tail(value: float, degrees: int) -> float:
    """Returns the probability that a χ² is larger.

    Source: series and continued fraction of the incomplete gamma function, Numerical Recipes, 6.2.
    """
    a, x = degrees / 2, value / 2
    if x <= 0:
        return 1.0
    front = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while abs(term) > abs(total) * 1e-15:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - total * front)
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    result, n = d, 0.0
    while True:
        n += 1
        factor = -n * (n - a)
        b += 2
        d = 1 / (factor * d + b or tiny)
        c = b + factor / c or tiny
        result *= d * c
        if abs(d * c - 1) < 1e-15 or n > 10_000:
            return front * result


@functools.cache
def chi_squared_limit(degrees: int, significance: float = SIGNIFICANCE) -> float:
    """Returns the value that a χ² exceeds with this probability."""
    low, high = 0.0, 10.0 * degrees + 100
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chi_squared_tail(middle, degrees) > significance else (low, middle)
    return high


def kolmogorov_smirnov(first: Floats, second: Floats) -> tuple[float, float]:
    """Returns the two-sample statistic and its asymptotic p-value.

    Source: the Kolmogorov distribution at `statistic · √(n·m/(n+m))`, `scipy.stats.kstwobign`.

    Args:
        first: ascending, not empty.
        second: the same.
    """
    both = np.concatenate((first, second))
    below_first = np.searchsorted(first, both, side="right") / len(first)
    below_second = np.searchsorted(second, both, side="right") / len(second)
    statistic = float(np.abs(below_first - below_second).max())
    scaled = statistic * math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    if scaled < 0.2:  # the series converges too slowly; the tail is 1 to 12 digits
        return statistic, 1.0
    tail = 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return statistic, min(max(tail, 0.0), 1.0)


def false_discoveries(p_values: Sequence[float], rate: float = SIGNIFICANCE) -> list[bool]:
    """Returns which of many tests to believe, if at most this share of those may be wrong.

    Source: Benjamini and Hochberg, Controlling the False Discovery Rate, 1995.
    """
    ordered = sorted(p_values)
    limit = max((p for rank, p in enumerate(ordered, 1) if p <= rate * rank / len(ordered)), default=-1.0)
    return [p <= limit for p in p_values]
