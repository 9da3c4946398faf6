"""Finds the two versions to compare, pairs their rows, and judges."""

import argparse
from typing import NamedTuple

import numpy as np
import pandas as pd

from scripts.evaluating.files import TIME, find_keys, to_texts
from scripts.evaluating.groups import Group, to_group, to_groups
from scripts.evaluating.truths import read_rows
from scripts.lifecycle import LifecycleError
from serving.monitoring.quality.answers import Classified
from serving.monitoring.quality.comparison import Moments, Verdict, compare_groups, compare_pairs
from serving.monitoring.quality.metrics import LOWER_IS_BETTER, MEANS, row_scores
from serving.settings import Settings

CHAMPION, CHALLENGERS = "champion", ("challenger", "shadow")
"""Roles."""

SCORE = "score of the row"

MIN_PAIRED_RATIO = 0.5
"""Share of the challenger's rows that the champion must have answered too, for a comparison in pairs."""


class Judged(NamedTuple):
    """A verdict with what it is based on."""

    metric: str
    champion: Moments
    challenger: Moments
    paired_by: list[str]
    """Columns; empty if the versions answered different rows."""
    verdict: Verdict


def find_contenders(options: argparse.Namespace, settings: Settings) -> tuple[Group, Group]:
    """Returns the champion's and the challenger's rows.

    Raises:
        LifecycleError: there are not two.
    """
    if len(options.file) > 2:
        raise LifecycleError(f"expected one or two files, got {len(options.file)}")
    if len(options.file) == 2:
        if options.champion or options.challenger:
            raise LifecycleError(
                "--champion and --challenger choose from one file; of two, the first is the champion's"
            )
        first, second = (to_group("", str(file), read_rows(file, options, settings)) for file in options.file)
        return first, second
    groups = list(to_groups(read_rows(options.file[0], options, settings)))
    champion = _choose(groups, options.champion, (CHAMPION,), "--champion")
    others = groups
    if options.challenger is None:  # the champion itself may have been a challenger before
        others = [group for group in groups if group.version != champion.version]
    challenger = _choose(others, options.challenger, CHALLENGERS, "--challenger")
    if champion is challenger:
        raise LifecycleError(f"champion and challenger are both {champion.name}")
    return champion, challenger


def _choose(groups: list[Group], version: str | None, roles: tuple[str, ...], option: str) -> Group:
    found = [
        group for group in groups if (group.role in roles if version is None else group.version == version)
    ]
    if len(found) > 1:
        found = [group for group in found if group.role in roles] or found
    if len(found) == 1:
        return found[0]
    what = f"version {version}" if version is not None else f"role {' or '.join(roles)}"
    names = ", ".join(group.name for group in groups) or "no others"
    if not found:
        raise LifecycleError(f"no predictions of {what}; name the version with {option}; there are: {names}")
    raise LifecycleError(
        f"{what} is not unique; choose a version with {option}, or pass its rows as a file; there are: {names}"
    )


def judge(champion: Group, challenger: Group, options: argparse.Namespace) -> Judged:
    """Returns the verdict: in pairs if both versions answered the same rows.

    Raises:
        LifecycleError: a version has no labels, or the metric does not fit.
    """
    kinds = {
        "classification" if isinstance(of.known, Classified) else "regression"
        for of in (champion, challenger)
    }
    if len(kinds) > 1:
        raise LifecycleError("one version is a classification, the other a regression")
    metrics = MEANS[kinds.pop()]
    metric = options.metric or metrics[0]
    if metric not in metrics:
        raise LifecycleError(f"these predictions have no {metric}; choose from {', '.join(metrics)}")
    lower_is_better = metric in LOWER_IS_BETTER
    on = list(options.on) or find_keys(champion.rows, challenger.rows)
    ours, theirs = (_to_labels(of, on, metric, options) for of in (champion, challenger))
    both = ours.dropna().merge(theirs.dropna(), on=on) if on else ours[:0]
    if len(both) and len(both) >= MIN_PAIRED_RATIO * len(theirs):
        pair = both[f"{SCORE}_x"].to_numpy(), both[f"{SCORE}_y"].to_numpy()
        verdict = compare_pairs(
            Moments.of(pair[1] - pair[0]), lower_is_better=lower_is_better, confidence=options.confidence
        )
        return Judged(metric, Moments.of(pair[0]), Moments.of(pair[1]), on, verdict)
    in_common = _in_common(champion, challenger)
    moments = [
        Moments.of(of.loc[of.index.intersection(rows), SCORE].to_numpy())
        for of, rows in zip((ours, theirs), in_common, strict=True)
    ]
    if not all(of.n for of in moments):
        raise LifecycleError(f"{champion.name} and {challenger.name} have no labels from the same time")
    verdict = compare_groups(*moments, lower_is_better=lower_is_better, confidence=options.confidence)
    return Judged(metric, moments[0], moments[1], [], verdict)


def _in_common(champion: Group, challenger: Group) -> list["pd.Index[int]"]:
    """Returns the rows of the time in which both versions answered: only these were assigned at random."""
    if any(TIME not in of.rows for of in (champion, challenger)):
        return [of.rows.index for of in (champion, challenger)]
    times = [pd.to_datetime(of.rows[TIME], utc=True, errors="coerce") for of in (champion, challenger)]
    start, end = max(of.min() for of in times), min(of.max() for of in times)
    return [of.index[of.between(start, end)] for of in times]


def _to_labels(group: Group, on: list[str], metric: str, options: argparse.Namespace) -> pd.DataFrame:
    """Returns keys and score of each label; of rows with the same key, the last.

    Raises:
        LifecycleError: there are no labels, or they have no such metric.
    """
    scores = row_scores(group.known, metric)
    if not len(scores):
        where = f" in {options.target!r}" if options.target is not None else " yet"
        raise LifecycleError(f"{group.name}: no prediction has a truth{where}")
    if np.isnan(scores).all():
        raise LifecycleError(
            f"{group.name}: {metric} needs the probabilities of all classes; name them with --score"
        )
    labels = group.rows.loc[group.is_known, on].apply(to_texts).assign(**{SCORE: scores})
    labels = labels[labels[SCORE].notna()]
    if not on:
        return labels
    return labels[~labels.duplicated(on, keep="last") | labels[on].isna().any(axis=1)]
