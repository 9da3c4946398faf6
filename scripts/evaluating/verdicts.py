"""A verdict about two versions, as facts and in words."""

from typing import Any

from scripts.evaluating.groups import Group
from scripts.evaluating.pairs import Judged
from serving.monitoring.quality.judgement import figures, foresee


def verdict_facts(champion: Group, challenger: Group, judged: Judged, confidence: float) -> dict[str, Any]:
    """Returns the facts of a comparison."""
    return {
        "champion": champion.name,
        "challenger": challenger.name,
        "metric": judged.metric,
        "confidence": confidence,
        "paired_by": judged.paired_by,
        "champion_labels": judged.champion.n,
        "challenger_labels": judged.challenger.n,
        "champion_mean": judged.champion.mean,
        "challenger_mean": judged.challenger.mean,
        **figures(judged.verdict),
    }


def verdict_lines(
    champion: Group, challenger: Group, judged: Judged, confidence: float, how: str
) -> list[str]:
    """Returns the verdict, the metric's means with the interval of their difference, and the missing labels.

    Args:
        champion: its rows.
        challenger: the same.
        judged: the comparison.
        confidence: of the verdict.
        how: what was compared.
    """
    verdict = judged.verdict
    return [
        f"{challenger.name} against {champion.name}: {verdict.outcome}",
        f"{judged.metric}: {judged.challenger.mean:.4g} against {judged.champion.mean:.4g}, difference "
        f"{verdict.difference:+.4g}, between {verdict.low:+.4g} and {verdict.high:+.4g} at {confidence:.4g} confidence",
        how,
        *filter(None, [foresee(verdict)]),
    ]
