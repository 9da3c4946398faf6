"""Which of two versions answers the same rows better, if the truth is known."""

import argparse
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scripts.evaluating.columns import Columns
from scripts.evaluating.groups import Group, to_group
from scripts.evaluating.pairs import judge
from scripts.evaluating.truths import TARGET, Predictions, Truths, join
from scripts.evaluating.verdicts import verdict_facts, verdict_lines
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.cli import align
from serving.monitoring.quality.metrics import score

ROW = "row of the replay"
"""Column that pairs the two versions' answers."""

COLUMNS = Columns("label", None, "value", None, None)
"""Of the log: probabilities of all classes are there, so the score is not needed."""


class Judgement(NamedTuple):
    """Metrics and verdict."""

    facts: dict[str, Any]
    lines: list[str]


def judge_answers(
    before: pd.DataFrame, after: pd.DataFrame, truths: Truths, champion: str, options: argparse.Namespace
) -> Judgement | None:
    """Returns the metrics of both versions, and the verdict in pairs; None if no row has feedback yet.

    Args:
        before: answers of the champion, with the columns to join by.
        after: answers of the other version to the same rows.
        truths: of these rows, or of some.
        champion: its version.
        options: the other version, and the metric to judge by.

    Raises:
        LifecycleError: no row has a truth in the file, or it cannot be compared with the answers.
    """
    joined, _ = join(before, truths)  # truths of rows outside the sample match none
    if not joined[TARGET].notna().any():
        if options.truth is None:
            return None
        raise LifecycleError(
            f"no row of the sample has a truth in {truths.source}; check --on, and the period"
        )
    joined[ROW] = np.arange(len(joined))
    shared = {name: joined[name] for name in (ROW, TARGET)}
    ours = to_group(champion, "champion", Predictions(joined, COLUMNS))
    theirs = to_group(options.version, "", Predictions(after.assign(**shared), COLUMNS))
    judged = judge(ours, theirs, argparse.Namespace(**vars(options) | {"on": [ROW], "target": truths.target}))
    metrics = {"champion": score(ours.known), "version": score(theirs.known)}
    how = f"{judged.champion.n:,} rows with truth, in pairs"
    return Judgement(
        verdict_facts(ours, theirs, judged, options.confidence) | {"metrics": metrics},
        [*_to_table(ours, theirs, metrics), *verdict_lines(ours, theirs, judged, options.confidence, how)],
    )


def _to_table(ours: Group, theirs: Group, metrics: dict[str, dict[str, float]]) -> list[str]:
    names = [name for name in metrics["champion"] if name in metrics["version"]]
    return align(
        [
            ("metric", theirs.name, ours.name),
            *(
                (name, f"{metrics['version'][name]:.4g}", f"{metrics['champion'][name]:.4g}")
                for name in names
            ),
        ]
    )
