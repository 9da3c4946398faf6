"""Judges the comparisons of `/v1/quality` by any of their metrics, with any confidence."""

import math
from typing import Any, Literal, NamedTuple

import msgspec

from serving.monitoring.quality.comparison import Moments, Verdict, compare_groups, compare_pairs
from serving.monitoring.quality.metrics import LOWER_IS_BETTER, MEANS

METRICS = tuple(metric for metrics in MEANS.values() for metric in metrics)
"""Metrics to judge by."""

DEFAULT_CONFIDENCE = 0.95


class Summary(msgspec.Struct, frozen=True):
    """Moments as `/v1/quality` has them."""

    n: int
    mean: float
    variance: float

    @property
    def moments(self) -> Moments:
        """The moments."""
        return Moments(self.n, self.mean, self.variance)


class Measured(msgspec.Struct, frozen=True):
    """One metric of two versions."""

    champion: Summary
    challenger: Summary
    difference: Summary | None = None
    """Challenger minus champion, for each row; None if they answered different rows."""

    @property
    def n_labels(self) -> int:
        """Pairs, or labels of both versions."""
        return self.difference.n if self.difference else self.champion.n + self.challenger.n


class Comparison(msgspec.Struct, frozen=True):
    """Two versions, by the number of each."""

    champion: str
    challenger: str
    role: Literal["challenger", "shadow"]
    period: int = 0
    """How often its answers have begun anew, because older ones are no longer kept."""
    metrics: dict[str, Measured] = {}
    """Empty while no row has both versions' answers and a truth."""


class Quality(msgspec.Struct, frozen=True):
    """The part of `/v1/quality` that a verdict needs."""

    comparisons: tuple[Comparison, ...] | None = None

    def of(self, champion: str, challenger: str) -> list[Comparison]:
        """Returns the comparisons of two versions that have figures."""
        return [
            one
            for one in self.comparisons or ()
            if (one.champion, one.challenger) == (champion, challenger) and one.metrics
        ]


class Judgement(NamedTuple):
    """A verdict about two versions, with what it is based on."""

    comparison: Comparison
    metric: str
    confidence: float
    verdict: Verdict

    @property
    def measured(self) -> Measured:
        """The metric of both versions."""
        return self.comparison.metrics[self.metric]

    @property
    def facts(self) -> dict[str, Any]:
        """The figures, for JSON; an infinite bound is None."""
        measured = self.measured
        return {
            "champion": self.comparison.champion,
            "challenger": self.comparison.challenger,
            "role": self.comparison.role,
            "metric": self.metric,
            "confidence": self.confidence,
            "is_paired": measured.difference is not None,
            "champion_labels": measured.champion.n,
            "challenger_labels": measured.challenger.n,
            "champion_mean": measured.champion.mean,
            "challenger_mean": measured.challenger.mean,
            **figures(self.verdict),
        }

    @property
    def missing(self) -> str:
        """How many labels are missing until the verdict is clear; empty if it is."""
        measured, versions = self.measured, (self.comparison.champion, self.comparison.challenger)
        for of, version in zip((measured.champion, measured.challenger), versions, strict=True):
            if not of.n:
                return f"version {version} has no labels yet"
        return foresee(self.verdict)

    def __str__(self) -> str:
        measured, verdict, compared = self.measured, self.verdict, self.comparison
        labels = (
            f"{measured.difference.n:,} rows that both answered"
            if measured.difference
            else f"{measured.champion.n:,} labels of version {compared.champion} and {measured.challenger.n:,} of "
            f"version {compared.challenger}"
        )
        return (
            f"{self.metric} {measured.challenger.mean:.4g} against {measured.champion.mean:.4g} of version "
            f"{compared.champion}, difference {verdict.difference:+.4g}, between {verdict.low:+.4g} and "
            f"{verdict.high:+.4g} at {self.confidence:.4g} confidence, from {labels}"
        )


def judge(comparison: Comparison, metric: str, confidence: float) -> Judgement:
    """Returns the verdict: in pairs if both versions answered the same rows.

    Args:
        comparison: of two versions.
        metric: one that it has.
        confidence: that no verdict of any look is wrong, 0 to 1.
    """
    measured = comparison.metrics[metric]
    lower_is_better = metric in LOWER_IS_BETTER
    within = spend(confidence, comparison.period)
    if measured.difference is not None:
        verdict = compare_pairs(
            measured.difference.moments, lower_is_better=lower_is_better, confidence=within
        )
    else:
        verdict = compare_groups(
            measured.champion.moments,
            measured.challenger.moments,
            lower_is_better=lower_is_better,
            confidence=within,
        )
    return Judgement(comparison, metric, confidence, verdict)


def figures(verdict: Verdict) -> dict[str, Any]:
    """Returns a verdict's outcome and numbers, for JSON; an infinite bound is None."""
    return {
        "verdict": verdict.outcome,
        "difference": verdict.difference,
        "low": verdict.low if math.isfinite(verdict.low) else None,
        "high": verdict.high if math.isfinite(verdict.high) else None,
        "more_labels": verdict.n_more,
    }


def spend(confidence: float, period: int) -> float:
    """Returns the confidence of a period's interval: each period halves the error that is left to it.

    A period has looks of its own that may err. All periods after the first together err as often as the first at most.
    """
    return 1 - (1 - confidence) * 0.5**period


def foresee(verdict: Verdict) -> str:
    """Returns a sentence about the labels that are missing; empty if the verdict is clear."""
    if verdict.outcome != "not yet":
        return ""
    if verdict.n_more is None:
        return "no number of labels is foreseeable that makes it clear: the versions hardly differ"
    return f"about {verdict.n_more:,} more labels make it clear, if the difference stays as it is"


def to_confidence(text: str) -> float:
    """Returns a confidence.

    Raises:
        ValueError: it is no number from 0.5 to below 1.
    """
    confidence = float(text)
    if not 0.5 <= confidence < 1:
        raise ValueError(text)
    return confidence
