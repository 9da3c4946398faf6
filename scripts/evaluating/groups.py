"""Turns the rows of a version into answers that metrics are computed from."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from scripts.evaluating.files import PROBABILITY, to_texts
from scripts.evaluating.truths import TARGET, Predictions
from scripts.lifecycle import LifecycleError
from serving.monitoring.quality.answers import (
    Answers,
    Codes,
    Floats,
    Mask,
    to_classified,
    to_regressed,
    to_text,
)

Texts = npt.NDArray[Any]


class Group(NamedTuple):
    """Rows of one version in one role."""

    version: str
    role: str
    rows: pd.DataFrame
    """Those with a prediction, with and without truth."""
    is_known: Mask
    """True for rows with a truth."""
    known: Answers
    """Those rows, in their order."""
    labels: Codes
    """Predicted for the other rows of a classification."""
    confidences: Floats
    """Of these labels; NaN if unknown."""

    @property
    def name(self) -> str:
        """The group in words."""
        return (
            " ".join(filter(None, (f"version {self.version}" if self.version else "", self.role)))
            or "all rows"
        )


def to_groups(predictions: Predictions) -> Iterator[Group]:
    """Yields the rows by version and role; all rows at once if the file has neither.

    Raises:
        LifecycleError: there are no predictions, or the truths cannot be compared with them.
    """
    rows, columns, _ = predictions
    by = [name for name in (columns.version, columns.role) if name is not None]
    keys = rows[by].apply(to_texts).fillna("") if by else rows[[]].assign(all="")
    found = keys.groupby(list(keys.columns)).indices
    groups = [(name if isinstance(name, tuple) else (name,), found[name]) for name in found]
    for names, positions in sorted(groups, key=lambda group: [(len(name), name) for name in group[0]]):
        named: dict[str | None, str] = dict(zip(by, names, strict=False))
        part = predictions._replace(rows=rows.iloc[positions])
        yield to_group(named.get(columns.version, ""), named.get(columns.role, ""), part)


def to_group(version: str, role: str, predictions: Predictions) -> Group:
    """Returns the rows of a version as answers.

    Raises:
        LifecycleError: there are no predictions, or the truths cannot be compared with them.
    """
    rows, columns, _ = predictions
    if columns.label is not None and (has := rows[columns.label].notna()).any():
        return _classify(version, role, rows[has], columns.label, columns.score)
    if columns.value is not None and (has := rows[columns.value].notna()).any():
        return _regress(version, role, rows[has], columns.value)
    raise LifecycleError(
        "no predictions in a column 'label' or 'value'; name theirs with --label or --value"
        if columns.label is None and columns.value is None
        else f"no predictions in the column {columns.label or columns.value!r}"
    )


def _regress(version: str, role: str, rows: pd.DataFrame, value: str) -> Group:
    truths, values = _to_numbers(rows[TARGET], "the truths"), _to_numbers(rows[value], repr(value))
    is_known = np.isfinite(truths) & np.isfinite(values)
    nothing = np.empty(0)
    return Group(
        version, role, rows, is_known, to_regressed(truths, values), nothing.astype(np.int64), nothing
    )


def _classify(version: str, role: str, rows: pd.DataFrame, label: str, score: str | None) -> Group:
    labels = to_texts(rows[label]).to_numpy()
    is_known = rows[TARGET].notna().to_numpy(dtype=np.bool_)
    truths = rows[TARGET].to_numpy()[is_known]
    classes, probabilities, confidences = _find_probabilities(labels, truths, rows, score)
    known_classes = set(classes) | set(labels)
    if len(truths) and not known_classes & set(truths):
        raise LifecycleError(
            f"no truth ({_some(truths)}) is a label of the predictions ({_some(known_classes)}); "
            "write both the same way"
        )
    # Rows without truth take their own label as truth for a moment, so that all have the same codes.
    every = to_classified(
        [truth if has else label for truth, has, label in zip(rows[TARGET], is_known, labels, strict=True)],
        list(labels),
        classes,
        probabilities,
        confidences,
    )
    rest = every.where(~is_known)
    none = np.full(len(rest), np.nan)
    return Group(
        version,
        role,
        rows,
        is_known,
        every.where(is_known),
        rest.labels,
        none if rest.confidences is None else rest.confidences,
    )


def _find_probabilities(
    labels: Texts, truths: Texts, rows: pd.DataFrame, score: str | None
) -> tuple[list[str], Floats | None, Floats | None]:
    """Returns the classes, and their probabilities or the confidences, if the rows have any."""
    columns = [str(name) for name in rows if str(name).startswith(PROBABILITY) and rows[name].notna().any()]
    if columns:
        classes = [to_text(name.removeprefix(PROBABILITY)) or "" for name in columns]
        return classes, rows[columns].astype(float).to_numpy(), None
    if score is None or not rows[score].notna().any():
        return [], None, None
    scores = _to_numbers(rows[score], repr(score))
    names = sorted(set(labels))
    if len(names) == 1:
        names = sorted({*labels, *truths})
    for first, second in (names, names[::-1]) if len(names) == 2 else ():
        if _is_probability_of(second, labels, scores):
            return [first, second], np.column_stack((1 - scores, scores)), None
    return [], None, scores


def _is_probability_of(second: str, labels: Texts, scores: Floats) -> bool:
    """True if a threshold on the score separates this label from the other; above 0.5 if only one was predicted.

    The score may also be the probability of whichever class was predicted.
    """
    usable = ~np.isnan(scores)
    is_second, scores = labels[usable] == second, scores[usable]
    if is_second.all() or not is_second.any():
        return bool((scores.mean() >= 0.5) == is_second.all())
    return bool(scores[is_second].min() >= scores[~is_second].max())


def _to_numbers(values: pd.Series, name: str) -> Floats:
    try:
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    except ValueError as error:
        raise LifecycleError(f"expected numbers in {name}: {error}") from None


def _some(labels: Iterable[str], n: int = 5) -> str:
    names = sorted(set(labels))
    return ", ".join(names[:n]) + (", …" if len(names) > n else "")
