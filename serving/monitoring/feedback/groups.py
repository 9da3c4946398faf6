"""The store's rows as answers of one version in one role, in the form that quality is computed from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from serving.monitoring.feedback.store import EVALUATED
from serving.monitoring.quality.answers import (
    MAX_NUMBER,
    Answers,
    Classified,
    Codes,
    Floats,
    Mask,
    to_classified,
    to_number,
    to_regressed,
    to_text,
)

VERSION, ROLE, TIME, REQUEST, ROW, LABEL, VALUE, SCORE, PROBABILITIES, SLICES = range(len(EVALUATED))
TRUTH = len(EVALUATED)
"""Positions in the store's rows."""

MAX_UNEXPECTED = 20

Rows = list[Sequence[Any]]


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """Answers of one version in one role."""

    version: str
    role: str
    known: Answers
    """Those with truth."""
    rows: Rows
    """The store's, in the order of `known`."""
    times: Floats
    """When these were answered, in seconds since 1970."""
    labels: Codes
    """Predicted in the answers without truth; empty for a regression."""
    confidences: Floats
    """Of these labels; NaN if unknown."""
    untold_times: Floats
    has_classes: bool
    """Whether the model's classes are known, from its probabilities."""

    @property
    def last_time(self) -> float:
        """When it answered last."""
        return float(max(of.max(initial=-math.inf) for of in (self.times, self.untold_times)))

    def values_of(self, column: str, mask: Mask) -> list[Any]:
        """Returns some rows' values of an input; None if it was not logged."""
        return [
            msgspec.json.decode(row[SLICES]).get(column) if row[SLICES] else None
            for row, is_in in zip(self.rows, mask.tolist(), strict=True)
            if is_in
        ]

    def unexpected_labels(self, mask: Mask) -> dict[str, int]:
        """Returns the truths that the model cannot predict, with their number: misspelt ones, perhaps."""
        if not self.has_classes or not isinstance(self.known, Classified):
            return {}
        some = self.known.truths[mask]
        counts = np.bincount(some, minlength=len(self.known.classes))[self.known.n_known :]
        found = zip(self.known.classes[self.known.n_known :], counts.tolist(), strict=True)
        return dict([(name, n) for name, n in found if n][:MAX_UNEXPECTED])

    def paired_with(self, other: "Group") -> tuple[Codes, Codes]:
        """Returns the positions of the rows that both answered."""
        theirs = {(row[REQUEST], row[ROW]): position for position, row in enumerate(other.rows)}
        pairs = [
            (position, at)
            for position, row in enumerate(self.rows)
            if (at := theirs.get((row[REQUEST], row[ROW]))) is not None
        ]
        ours, others = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return ours, others

    def overlapping(self, other: "Group") -> tuple[Codes, Codes]:
        """Returns the positions of the rows of the time in which both answered: only these were assigned at random."""
        start = max(self.times.min(), other.times.min())
        end = min(self.times.max(), other.times.max())
        ours, others = (np.flatnonzero((of.times >= start) & (of.times <= end)) for of in (self, other))
        return ours, others


def to_groups(told: Iterable[Sequence[Any]], untold: Iterable[Sequence[Any]]) -> list[Group]:
    """Returns the groups.

    Args:
        told: rows with their truth, see `Store.told`.
        untold: rows without.
    """
    parts: dict[tuple[str, str], tuple[Rows, Rows]] = {}
    for position, rows in enumerate((told, untold)):
        for row in rows:
            parts.setdefault((row[VERSION], row[ROLE]), ([], []))[position].append(row)
    return [
        _to_group(version, role, *of)
        for (version, role), of in sorted(parts.items(), key=lambda item: (len(item[0][0]), item[0]))
    ]


def _to_group(version: str, role: str, told: Rows, untold: Rows) -> Group:
    if any(row[LABEL] is not None for row in told or untold):
        return _classify(version, role, told, untold)
    known = [
        (row, number)
        for row in told
        if row[VALUE] is not None
        and abs(row[VALUE]) <= MAX_NUMBER
        and (number := to_number(row[TRUTH])) is not None
    ]
    rows = [row for row, _ in known]
    return Group(
        version,
        role,
        to_regressed([number for _, number in known], [row[VALUE] for row in rows]),
        rows,
        _times(rows),
        np.empty(0, dtype=np.int64),
        np.empty(0),
        np.empty(0),
        has_classes=False,
    )


def _classify(version: str, role: str, told: Rows, untold: Rows) -> Group:
    rows = [row for row in told if row[LABEL] is not None]
    rest = [row for row in untold if row[LABEL] is not None]
    every = [*rows, *rest]
    labels = [to_text(row[LABEL]) or "" for row in every]
    # Rows without truth take their own label as truth for a moment, so that all have the same codes.
    truths = [*(row[TRUTH] for row in rows), *labels[len(rows) :]]
    names, probabilities = _probabilities(every)
    confidences = None
    if probabilities is None:
        confidences = np.array([row[SCORE] for row in every], dtype=np.float64)  # None becomes NaN
    found = to_classified(truths, labels, names, probabilities, confidences)
    is_told = np.arange(len(every)) < len(rows)
    others = found.where(~is_told)
    assert others.confidences is not None
    return Group(
        version,
        role,
        found.where(is_told),
        rows,
        _times(rows),
        others.labels,
        others.confidences,
        _times(rest),
        has_classes=bool(names),
    )


def _probabilities(rows: Rows) -> tuple[list[str], Floats | None]:
    """Returns the classes, and the probabilities of shape `(n_rows, n_classes)`; NaN if a row has none."""
    first = next((row[PROBABILITIES] for row in rows if row[PROBABILITIES]), None)
    if first is None:
        return [], None
    classes = list(msgspec.json.decode(first))
    decode = msgspec.json.Decoder(dict[str, float | None]).decode
    none: dict[str, float | None] = {}
    matrix = [
        [by_class.get(name) for name in classes]
        for by_class in (decode(row[PROBABILITIES]) if row[PROBABILITIES] else none for row in rows)
    ]
    return [to_text(name) or "" for name in classes], np.array(matrix, dtype=np.float64)


def _times(rows: Rows) -> Floats:
    return np.array([row[TIME] for row in rows], dtype=np.float64)
