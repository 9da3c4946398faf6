"""Computes the answer of `/v1/quality` from the store; a process that ends when it has.

python -m serving.monitoring.feedback.evaluator OPTIONS
"""

import datetime as dt
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from serving.monitoring.feedback.databases import StoreError
from serving.monitoring.feedback.groups import Group, to_groups
from serving.monitoring.feedback.options import STORE_VARIABLE, Options, quality_path
from serving.monitoring.feedback.store import Count, Store, open_store
from serving.monitoring.quality.answers import Answers, Classified, Codes, Mask
from serving.monitoring.quality.calibration import calibrate
from serving.monitoring.quality.comparison import Moments, compare_groups, compare_pairs
from serving.monitoring.quality.estimate import estimate_accuracy, hold_out
from serving.monitoring.quality.judgement import spend
from serving.monitoring.quality.metrics import LOWER_IS_BETTER, MEANS, row_scores, score, score_classes
from serving.monitoring.quality.slices import slices
from serving.process.logs import configure_logging

log = logging.getLogger("serving.feedback")

DAY_SECONDS = 86_400

WINDOWS = {"1d": 1, "7d": 7, "30d": 30}
"""Days by name; by the time of the answer, not of the truth."""

ALL = "all"
"""The window of all answers that are kept: truths may come later than 30 days."""

MAX_TOLD, MAX_UNTOLD = 200_000, 50_000
"""Answers with and without truth that are read, the newest of them."""

CONFIDENCE = 0.95
"""Of the verdicts."""

Counts = dict[tuple[str, str], Count]
"""By version and role."""

CHAMPION, SHADOW = "champion", "shadow"

MAX_COMPARISONS = 10
"""Challengers and shadows that are compared with the champion, those that answered last."""


def evaluate(store: Store, model: str, columns: Sequence[str], oldest: float, now: float) -> dict[str, Any]:
    """Returns what is known about a model's quality.

    Args:
        store: has the answers and truths.
        model: name.
        columns: inputs by whose values quality is told apart.
        oldest: time of the oldest answers that are kept, in seconds since 1970.
        now: time, the same.

    Raises:
        StoreError: the store fails.
    """
    n_truths, n_unknown = store.count_truths(model)
    groups = to_groups(
        store.told(model, oldest, MAX_TOLD), store.untold(model, oldest, MAX_UNTOLD) if n_truths else []
    )
    windows = {name: now - days * DAY_SECONDS for name, days in WINDOWS.items()} | {ALL: oldest}
    counts = {name: store.count_answers(model, since) for name, since in windows.items()}
    return {
        "model": model,
        "updated": dt.datetime.fromtimestamp(now, dt.UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z"),
        "feedback": {"truths": n_truths, "unknown": n_unknown},
        "windows": [
            {"window": name, "versions": _window(counts[name], groups, columns, since)}
            for name, since in windows.items()
        ],
        "over_time": [entry for group in groups for entry in _by_day(group)],
        "comparisons": [
            _compare(*pair, _period(_start(store, model, *pair, counts[ALL]), now - oldest, now))
            for pair in _pairs(groups)
        ],
    }


def _window(
    counts: Counts, groups: list[Group], columns: Sequence[str], since: float
) -> list[dict[str, Any]]:
    found = {(group.version, group.role): group for group in groups}
    return [
        {"version": version, "role": role, "rows": counts[version, role].n_rows}
        | (
            describe(found[version, role], columns, since)
            if (version, role) in found
            else {"labels": 0, "metrics": {}}
        )
        for version, role in sorted(counts, key=lambda key: (len(key[0]), key))
    ]


def describe(group: Group, columns: Sequence[str], since: float) -> dict[str, Any]:
    """Returns the quality of a version's answers since a time."""
    is_in = group.times >= since
    known = group.known.where(is_in)
    facts: dict[str, Any] = {"labels": len(known), "metrics": measure(group, is_in)}
    if columns and len(known):
        facts["slices"] = [
            {
                "slice": f"{column} = {value}",
                "labels": int(mask.sum()),
                "metrics": score(known.where(mask)),
            }
            for column in columns
            for value, mask in slices(group.values_of(column, is_in))
        ]
    if isinstance(known, Classified) and isinstance(group.known, Classified):
        # Others are up to those who send truths, without limit.
        own = known.classes[: known.n_known]
        facts["classes"] = {name: of for name, of in score_classes(known).items() if name in own}
        calibration = calibrate(known)
        if calibration is not None:
            facts["calibration"] = {
                "of": calibration.what,
                "bins": [part._asdict() for part in calibration.bins],
            }
        facts["estimate"] = _estimate(group, group.known, since)
        unexpected = group.unexpected_labels(is_in)
        if unexpected:
            facts["unexpected_labels"] = unexpected
    return facts


def measure(group: Group, mask: Mask) -> dict[str, float]:
    """Returns the metrics of some labelled rows."""
    known = group.known.where(mask)
    metrics = score(known)
    calibration = calibrate(known) if isinstance(known, Classified) else None
    if calibration is not None:
        metrics["calibration_error"] = calibration.error
    return metrics


def _estimate(group: Group, known: Classified, since: float) -> dict[str, Any] | None:
    is_in = group.untold_times >= since
    found = estimate_accuracy(known, group.labels[is_in], group.confidences[is_in])
    if found is None:
        return None
    check = hold_out(known, np.argsort(group.times, kind="stable"))
    return {
        "rows": found.n_rows,
        "labels": found.n_labels,
        "accuracy": found.accuracy,
        "standard_error": found.standard_error,
        "check": check,
    }


def _by_day(group: Group) -> list[dict[str, Any]]:
    days = group.times // DAY_SECONDS
    return [
        {
            "date": dt.datetime.fromtimestamp(day * DAY_SECONDS, dt.UTC).date().isoformat(),
            "version": group.version,
            "role": group.role,
            "labels": int((days == day).sum()),
            "metrics": measure(group, days == day),
        }
        for day in np.unique(days).tolist()
    ]


class Period(NamedTuple):
    """The time of the answers that a comparison is made of."""

    number: int
    since: float


def _pairs(groups: list[Group]) -> Iterator[tuple[Group, Group]]:
    """Yields the version that is champion now, with each other that has labels."""
    champions = [group for group in groups if group.role == CHAMPION and len(group.known)]
    champion = max(champions, key=lambda group: group.last_time, default=None)
    if champion is None:
        return
    others = [
        group
        for group in groups
        if group.role != CHAMPION and group.version != champion.version and len(group.known)
    ]
    for challenger in sorted(others, key=lambda group: -group.last_time)[:MAX_COMPARISONS]:
        if isinstance(challenger.known, Classified) == isinstance(champion.known, Classified):
            yield champion, challenger


def _start(store: Store, model: str, champion: Group, challenger: Group, counts: Counts) -> float:
    """Returns when both versions had begun to answer."""
    first = max(counts[of.version, of.role].first_time for of in (champion, challenger))
    return store.start_of(model, champion.version, challenger.version, challenger.role, first)


def _period(start: float, keep_seconds: float, now: float) -> Period:
    """Returns the present one: the interval is valid from a fixed start, and the first answers are deleted in the end."""
    number = max(0, int((now - start) // keep_seconds))
    return Period(number, start + number * keep_seconds)


def _compare(champion: Group, challenger: Group, period: Period) -> dict[str, Any]:
    is_paired = challenger.role == SHADOW
    ours, theirs = champion.paired_with(challenger) if is_paired else champion.overlapping(challenger)
    if is_paired:
        is_in = challenger.times[theirs] >= period.since  # a shadow answers after the champion
        rows = ours[is_in], theirs[is_in]
    else:
        rows = ours[champion.times[ours] >= period.since], theirs[challenger.times[theirs] >= period.since]
    kind = "classification" if isinstance(champion.known, Classified) else "regression"
    return {
        "champion": champion.version,
        "challenger": challenger.version,
        "role": challenger.role,
        "is_paired": is_paired,
        "confidence": CONFIDENCE,
        "period": period.number,
        "metrics": {
            metric: found
            for metric in MEANS[kind]
            if (
                found := _judge(
                    metric,
                    champion.known,
                    challenger.known,
                    rows,
                    is_paired=is_paired,
                    confidence=spend(CONFIDENCE, period.number),
                )
            )
        },
    }


def _judge(
    metric: str,
    champion: Answers,
    challenger: Answers,
    rows: tuple[Codes, Codes],
    *,
    is_paired: bool,
    confidence: float,
) -> dict[str, Any] | None:
    """Returns the verdict by one metric; None if no row has it."""
    ours, theirs = (
        row_scores(answers, metric)[of] for answers, of in zip((champion, challenger), rows, strict=True)
    )
    lower_is_better = metric in LOWER_IS_BETTER
    difference = None
    if is_paired:
        has = ~np.isnan(ours) & ~np.isnan(theirs)
        ours, theirs = ours[has], theirs[has]
        difference = Moments.of(theirs - ours)
        verdict = compare_pairs(difference, lower_is_better=lower_is_better, confidence=confidence)
    ours, theirs = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
    moments = Moments.of(ours), Moments.of(theirs)
    if not is_paired:
        verdict = compare_groups(*moments, lower_is_better=lower_is_better, confidence=confidence)
    if not all(of.n for of in moments):
        return None
    return {
        "champion": moments[0]._asdict(),
        "challenger": moments[1]._asdict(),
        "difference": None if difference is None else difference._asdict(),
        "verdict": verdict.outcome,
        "value": verdict.difference,
        "low": verdict.low if math.isfinite(verdict.low) else None,
        "high": verdict.high if math.isfinite(verdict.high) else None,
        "more_labels": verdict.n_more,
    }


def main(options: Options, oldest: float) -> None:
    """Deletes what is too old, and writes the file that workers show."""
    configure_logging(options.log_format)
    try:
        with open_store(os.environ[STORE_VARIABLE], Path(options.folder)) as store:
            store.delete_old(options.model, oldest)
            found = evaluate(store, options.model, options.slices, oldest, time.time())
    except StoreError as error:
        log.error("quality is not evaluated: %s (retrying)", error)  # noqa: TRY400  # no traceback needed
        sys.exit(1)
    path = quality_path(Path(options.run_directory))
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_bytes(msgspec.json.encode(found))
    aside.replace(path)


if __name__ == "__main__":
    from serving.process.child import lower_priority

    lower_priority()
    main(msgspec.json.decode(sys.argv[1], type=Options), float(sys.argv[2]))
