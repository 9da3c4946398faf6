"""What an autopilot does with a verdict: which version is promoted, or removed, and by which criterion."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from serving.monitoring.quality.judgement import (
    DEFAULT_CONFIDENCE,
    METRICS,
    Comparison,
    Quality,
    judge,
    to_confidence,
)
from serving.monitoring.quality.metrics import MEANS
from serving.prepare.registry.resolution import AUTOPILOT_TAG
from serving.settings import Settings

MAX_TAG_CHARACTERS = 40
"""Of a tag's value, in messages."""

DEFAULT_METRICS = tuple(metrics[0] for metrics in MEANS.values())

Role = Literal["challenger", "shadow"]


class Trouble(Exception):
    """Why the autopilot cannot act; one line."""


class Criterion(NamedTuple):
    """What makes a version better."""

    metric: str | None
    """None takes the default metric of the model's task."""
    confidence: float


class Order(msgspec.Struct, frozen=True):
    """One move, which holds only while the registry still names these versions."""

    champion: str
    contender: str
    """The version to promote or to remove."""
    role: Role
    outcome: Literal["better", "worse"]
    why: str
    """The figures of the verdict."""

    @property
    def what(self) -> tuple[str, ...]:
        """Everything but the figures, which change with each label."""
        return self.champion, self.contender, self.role, self.outcome


def parse_criterion(text: str) -> Criterion | None:
    """Returns the criterion in the tag's value; None if it is off.

    Raises:
        Trouble: it is something else.
    """
    name, separator, rest = text.partition("@")
    name = name.strip().lower()
    try:
        confidence = to_confidence(rest) if separator else DEFAULT_CONFIDENCE
    except ValueError:
        name = ""
    if name in METRICS:
        return Criterion(name, confidence)
    if name == "true":
        return Criterion(None, confidence)
    if text.strip().lower() == "false":
        return None
    raise Trouble(
        f"the tag {AUTOPILOT_TAG} is {text[:MAX_TAG_CHARACTERS]!r}; expected true, false or a metric ({', '.join(METRICS)}), and "
        "optionally a confidence from 0.5 to below 1, such as accuracy@0.99"
    )


def why_not(settings: Settings) -> str:
    """Returns what the service lacks for an autopilot; empty if nothing."""
    if settings.model_version is not None:
        return "this service is pinned to a version; unset SERVING_MODEL_VERSION"
    if settings.model_stage is not None:
        return "it moves aliases, not legacy stages; unset SERVING_MODEL_STAGE and follow an alias"
    if settings.feedback_store is None:
        return "it needs truths to judge by; set SERVING_FEEDBACK_STORE"
    if settings.challenger_alias is None and settings.shadow_alias is None:
        return "it needs a version to judge; set SERVING_CHALLENGER_ALIAS or SERVING_SHADOW_ALIAS"
    return ""


def decide(
    champion: str, contenders: Mapping[Role, str], criterion: Criterion, quality: Quality
) -> Order | None:
    """Returns the move that is due; None if there is none yet.

    Args:
        champion: the version in production.
        contenders: the versions that answer beside it, by role.
        criterion: of the tag.
        quality: the comparisons.

    Raises:
        Trouble: a comparison does not have the metric.
    """
    for role, contender in contenders.items():
        if contender == champion:  # an interrupted move, or somebody else has promoted it
            return Order(champion, contender, role, "better", f"version {champion} is in production")
        for one in quality.of(champion, contender):
            if one.role != role:
                continue
            judgement = judge(one, _choose_metric(one, criterion), criterion.confidence)
            if judgement.verdict.outcome != "not yet":
                return Order(champion, contender, role, judgement.verdict.outcome, str(judgement))
    return None


def _choose_metric(comparison: Comparison, criterion: Criterion) -> str:
    accepted = DEFAULT_METRICS if criterion.metric is None else (criterion.metric,)
    for metric in accepted:
        if metric in comparison.metrics:
            return metric
    there, meant = ", ".join(comparison.metrics), " or ".join(accepted)
    raise Trouble(f"versions are compared by {there}, not by {meant}; correct the tag {AUTOPILOT_TAG}")
