"""Whether a version does worse than the one before it, from what services count."""

from typing import NamedTuple

MIN_REQUESTS = 20
"""Of fewer requests nothing is concluded."""

NEGLIGIBLE_SECONDS = 0.005
"""A mean latency that is longer by no more than this has not become worse."""


class Counts(NamedTuple):
    """What one version has been asked, added up over services."""

    answered: float = 0
    failed: float = 0
    seconds: float = 0
    """That the answered ones took, in all."""

    @property
    def requests(self) -> float:
        """Answered or not."""
        return self.answered + self.failed

    @property
    def error_rate(self) -> float:
        """Failed ones among all."""
        return self.failed / self.requests if self.requests else 0.0

    @property
    def latency(self) -> float:
        """Mean seconds of an answer."""
        return self.seconds / self.answered if self.answered else 0.0

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]  # of the fields, not of the tuples
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def since(self, before: "Counts") -> "Counts":
        """Returns what came after; a counter that went back began anew, with the process that kept it."""
        return Counts(*(a - b if a >= b else a for a, b in zip(self, before, strict=True)))


class Limits(NamedTuple):
    """How much worse a version may be."""

    error_increase: float
    """By so much the part of failed requests may be larger."""
    latency_ratio: float
    """So many times as long an answer may take."""


def find_worsening(before: Counts, after: Counts, limits: Limits) -> str | None:
    """Returns how a version does worse, in a few words; None where it does not, or too little is known of it.

    Where too little is known of the version before, that is taken for one whose requests do not fail.
    """
    if after.requests < MIN_REQUESTS:
        return None
    is_known = before.requests >= MIN_REQUESTS
    if after.error_rate > (before.error_rate if is_known else 0) + limits.error_increase:
        compared = (
            f"before {before.error_rate:.1%} of {before.requests:.0f}"
            if is_known
            else "and too little is known of the version before"
        )
        return f"{after.error_rate:.1%} of {after.requests:.0f} requests fail, {compared}"
    slower = after.latency - before.latency
    if is_known and slower > NEGLIGIBLE_SECONDS and after.latency > limits.latency_ratio * before.latency:
        return f"an answer takes {after.latency * 1e3:.1f} ms, before {before.latency * 1e3:.1f} ms"
    return None
