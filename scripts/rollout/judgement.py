"""Decides from the metrics of both sides whether a canary may get more of the traffic."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from scripts.lifecycle.guard import NEGLIGIBLE_SECONDS

LATENCY_QUANTILE = 0.95

FAR_TOO_FEW = 0.1
"""Minimum fraction of its expected requests that a working canary has answered."""

N_DEVIATIONS = 3
"""Standard deviations by which two shares of the same population may differ by chance: once in 700 looks."""


class Behaviour(NamedTuple):
    """Metrics of one side, summed over its pods."""

    failed: float = 0
    """Prediction requests answered with an error."""
    buckets: Mapping[float, float] = {}
    """Answered requests by upper bound of their latency, seconds; cumulative, the last bound infinite."""
    classes: Mapping[str, float] = {}
    """Rows by predicted class; empty for regressors."""
    restarts: int = 0
    """Observed restarts of a process of the side."""

    @property
    def answered(self) -> float:
        """Requests answered with predictions."""
        return self.buckets.get(math.inf, 0)

    @property
    def requests(self) -> float:
        """All requests, answered and failed."""
        return self.answered + self.failed

    @property
    def error_rate(self) -> float:
        """Failed requests as a fraction of all."""
        return self.failed / self.requests if self.requests else 0.0

    @property
    def latency(self) -> float:
        """95th-percentile latency of answered requests, seconds."""
        return quantile(self.buckets, LATENCY_QUANTILE)

    @property
    def rows(self) -> float:
        """Rows with a predicted class."""
        return sum(self.classes.values())


class Limits(NamedTuple):
    """How much worse than the stable side a canary may be, and the minimum data to judge by."""

    error_increase: float = 0.01
    """Maximum rise in error rate (fraction)."""
    latency_ratio: float = 2
    """Maximum 95th-percentile latency relative to the stable side."""
    class_difference: float = 0.15
    """Maximum difference in the share of a predicted class."""
    requests: int = 100
    """Minimum requests to judge by."""
    rows: int = 500
    """Minimum rows to compare classes."""


class Verdict(NamedTuple):
    """What to do about the canary, and why."""

    kind: Literal["go on", "wait", "break off"]
    why: str = ""


class Share(NamedTuple):
    """The canary's share of the traffic."""

    percent: int
    """Lower bound: a share in pods may be larger."""
    has_lasted: bool = False
    """True once the step's minimum duration has passed."""

    @property
    def is_alone(self) -> bool:
        """True at 100 %, when the stable side gets no requests."""
        return self.percent == 100


def judge(stable: Behaviour, canary: Behaviour, limits: Limits, share: Share) -> Verdict:
    """Returns whether the canary does as well as the stable side.

    Args:
        stable: in the same period; in the hour before if the canary is alone. If that is too little, it counts as free
            of errors, and neither latency nor classes are compared.
        canary: since it has its present share of the traffic.
        limits: allowed differences.
        share: the canary's.
    """
    if canary.restarts:
        # A process that ends does not count the requests that it leaves unanswered.
        return Verdict("break off", f"a process of the canary restarted, {canary.restarts} times")
    if not all(map(math.isfinite, (stable.requests, canary.requests, stable.latency, canary.latency))):
        return Verdict("break off", "its metrics are not finite numbers")
    is_known = stable.requests >= limits.requests
    if not is_known and not share.is_alone:
        return Verdict("wait", f"stable has {stable.requests:.0f} of {limits.requests} requests")
    if canary.failed > _allowed_failures(stable if is_known else Behaviour(), canary, limits):
        before = (
            f"{stable.error_rate:.1%} of {stable.requests:.0f}" if is_known else "too few to compare with"
        )
        return Verdict(
            "break off",
            f"{canary.error_rate:.1%} of {canary.requests:.0f} requests of the canary fail, stable: {before}",
        )
    if canary.answered < limits.requests:
        return _judge_too_few(stable, canary, limits, share)
    slower = canary.latency - stable.latency
    if (
        is_known
        and stable.answered
        and slower > NEGLIGIBLE_SECONDS
        and canary.latency > limits.latency_ratio * stable.latency
    ):
        return Verdict(
            "break off",
            f"95 % of the canary's answers take up to {canary.latency * 1e3:.1f} ms, "
            f"stable: {stable.latency * 1e3:.1f} ms",
        )
    return _judge_classes(stable, canary, limits, is_alone=share.is_alone)


def _judge_too_few(stable: Behaviour, canary: Behaviour, limits: Limits, share: Share) -> Verdict:
    """Breaks off a canary that answers almost none of its expected requests: it hangs, or is unreachable."""
    expected = 0.0 if share.is_alone else stable.requests * share.percent / (100 - share.percent)
    if share.has_lasted and expected >= limits.requests and canary.answered < expected * FAR_TOO_FEW:
        return Verdict(
            "break off",
            f"the canary has answered {canary.answered:.0f} requests, and should have {expected:.0f}",
        )
    return Verdict("wait", f"the canary has answered {canary.answered:.0f} of {limits.requests} requests")


def _judge_classes(stable: Behaviour, canary: Behaviour, limits: Limits, *, is_alone: bool) -> Verdict:
    if not stable.classes and not canary.classes:
        return Verdict("go on")
    if not is_alone and stable.rows < limits.rows:
        return Verdict("wait", f"stable has {stable.rows:.0f} of {limits.rows} rows with a class")
    if canary.rows < limits.rows and (stable.rows or not is_alone):
        return Verdict("wait", f"the canary has {canary.rows:.0f} of {limits.rows} rows with a class")
    if stable.rows < limits.rows:
        return Verdict("go on")
    name, by = largest_difference(stable.classes, canary.classes)
    if by > limits.class_difference:
        was, now = (side.classes.get(name, 0) / side.rows for side in (stable, canary))
        return Verdict(
            "break off",
            f"the canary predicts {name!r} for {now:.1%} of {canary.rows:.0f} rows, "
            f"stable: {was:.1%} of {stable.rows:.0f}",
        )
    return Verdict("go on")


def _allowed_failures(stable: Behaviour, canary: Behaviour, limits: Limits) -> float:
    """Returns how many requests of the canary may fail.

    If it has fewer requests than the minimum, the missing ones count as answered: too many failures then stay too many.
    The failures of both sides vary by chance.

    Source: the standard error of the difference of two proportions of one population.
    """
    n = max(canary.requests, limits.requests)
    p = stable.error_rate
    by_chance = math.sqrt(p * (1 - p) * (1 / n + 1 / stable.requests)) if p else 0.0
    return n * (p + limits.error_increase + N_DEVIATIONS * by_chance)


def largest_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[str, float]:
    """Returns the class whose share differs most, and by how much; a class that one side lacks has the share 0."""
    n_ours, n_theirs = sum(ours.values()), sum(theirs.values())
    # With two classes, both differ by the same amount, except for rounding.
    differences = {
        name: round(abs(ours.get(name, 0) / n_ours - theirs.get(name, 0) / n_theirs), 12)
        for name in sorted({*ours, *theirs})
    }
    name = max(differences, key=lambda each: differences[each])
    return name, differences[name]


def quantile(buckets: Mapping[float, float], part: float) -> float:
    """Returns a quantile of a histogram; 0 if it is empty.

    Args:
        buckets: cumulative counts by upper bound, the last one infinite.
        part: of the observations below the quantile, between 0 and 1.

    Source: Prometheus' `histogram_quantile`: linear within a bucket, and the last finite bound above it.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0
    if not total:
        return 0.0
    rank = part * total
    below, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        below, lower = buckets[bound], bound
    return lower
