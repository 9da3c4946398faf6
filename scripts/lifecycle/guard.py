"""Decides from services' counters whether a version does worse than the one before it."""

from typing import NamedTuple

MIN_REQUESTS = 20
"""Minimum requests to judge by."""

NEGLIGIBLE_SECONDS = 0.005
"""A rise in mean latency up to this is ignored."""


class Counts(NamedTuple):
    """Counters of one version, summed over services."""

    answered: float = 0
    failed: float = 0
    seconds: float = 0
    """Total latency of the answered ones."""

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
        """Mean latency of an answer, seconds."""
        return self.seconds / self.answered if self.answered else 0.0

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]  # of the fields, not of the tuples
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def since(self, before: "Counts") -> "Counts":
        """Returns the increase since then; a counter that decreased was reset by a restart."""
        return Counts(*(a - b if a >= b else a for a, b in zip(self, before, strict=True)))


class Limits(NamedTuple):
    """How much worse a version may be."""

    error_increase: float
    """Maximum rise in error rate (fraction)."""
    latency_ratio: float
    """Maximum mean latency relative to the version before."""


def find_worsening(before: Counts, after: Counts, limits: Limits) -> str | None:
    """Returns how a version does worse, in a few words; None if it does not, or has too few requests.

    If the version before has too few requests, it counts as one whose requests do not fail.
    """
    if after.requests < MIN_REQUESTS:
        return None
    is_known = before.requests >= MIN_REQUESTS
    if after.error_rate > (before.error_rate if is_known else 0) + limits.error_increase:
        compared = (
            f"before {before.error_rate:.1%} of {before.requests:.0f}"
            if is_known
            else "with too few requests before to compare"
        )
        return f"{after.error_rate:.1%} of {after.requests:.0f} requests fail, {compared}"
    slower = after.latency - before.latency
    if is_known and slower > NEGLIGIBLE_SECONDS and after.latency > limits.latency_ratio * before.latency:
        return f"an answer takes {after.latency * 1e3:.1f} ms, before {before.latency * 1e3:.1f} ms"
    return None
