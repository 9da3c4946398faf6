"""Answers of a model beside the truth, in the form that metrics are computed from."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Classified:
    """Rows of a classifier whose truth is known. Labels are positions in `classes`."""

    classes: tuple[str, ...]
    """The model's classes in the order of the probabilities, then any other label that occurs."""
    n_known: int
    """How many of them the model has."""
    truths: Codes
    labels: Codes
    probabilities: Floats | None = None
    """Shape `(n_rows, n_known)`; a row without probabilities is NaN."""
    confidences: Floats | None = None
    """Probability of the predicted label; NaN if the row has none."""

    def __len__(self) -> int:
        return len(self.truths)

    @property
    def are_right(self) -> Mask:
        """True for each row with the right label."""
        return np.asarray(self.labels == self.truths, dtype=np.bool_)

    def where(self, mask: Mask) -> "Classified":
        """Returns some of the rows."""
        return replace(
            self,
            truths=self.truths[mask],
            labels=self.labels[mask],
            probabilities=None if self.probabilities is None else self.probabilities[mask],
            confidences=None if self.confidences is None else self.confidences[mask],
        )


@dataclass(frozen=True, eq=False, slots=True)
class Regressed:
    """Rows of a regression whose truth is known; finite numbers."""

    truths: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.truths)

    def where(self, mask: Mask) -> "Regressed":
        """Returns some of the rows."""
        return Regressed(self.truths[mask], self.values[mask])


Answers = Classified | Regressed

MAX_NUMBER = 1e70
"""Of a regression whose quality is kept: the variance of squared errors, a sum of fourth powers, stays finite."""

_WHOLE = re.compile(r"-?[0-9]+\.0+")


def to_text(label: Any) -> str | None:
    """Returns a label as text, so that 1, 1.0 and "1.0" are equal, and True, "True" and "true"; None if it is missing."""
    if label is None or (isinstance(label, (float, np.floating)) and math.isnan(label)):
        return None
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        return str(int(label))
    text = str(label)
    if text in {"<NA>", "NaT"}:
        return None
    if _WHOLE.fullmatch(text):
        return text.partition(".")[0]
    return text.lower() if text in {"True", "False"} else text


def to_number(text: str) -> float | None:
    """Returns a number from `-MAX_NUMBER` to `MAX_NUMBER`; None if it is something else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= MAX_NUMBER else None


def to_classified(
    truths: Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str] = (),
    probabilities: Floats | None = None,
    confidences: Floats | None = None,
) -> Classified:
    """Returns the rows with their labels as positions.

    Args:
        truths: what was right; see `to_text`.
        labels: what the model predicted.
        classes: of the model, in the order of the probabilities; labels that are missing here are added.
        probabilities: shape `(n_rows, len(classes))`; NaN or rows that are no distribution count as missing.
        confidences: of the predicted labels; default: from the probabilities.
    """
    known = list(classes) or sorted(set(labels))
    names = tuple(dict.fromkeys([*known, *sorted({*labels, *truths})]))
    codes = {name: code for code, name in enumerate(names)}
    predicted = np.array([codes[label] for label in labels], dtype=np.int64)
    if probabilities is not None:
        probabilities = np.array(probabilities, dtype=np.float64)
        is_distribution = (probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-3)
        probabilities[~is_distribution] = np.nan
        if confidences is None:
            has = predicted < len(known)
            confidences = np.full(len(predicted), np.nan)
            confidences[has] = probabilities[has, predicted[has]]
    if confidences is not None:
        confidences = np.where((confidences >= 0) & (confidences <= 1), confidences, np.nan)
    return Classified(
        names,
        len(known),
        np.array([codes[truth] for truth in truths], dtype=np.int64),
        predicted,
        probabilities,
        confidences,
    )


def to_regressed(truths: npt.ArrayLike, values: npt.ArrayLike) -> Regressed:
    """Returns the rows in which both numbers are finite."""
    right, found = np.asarray(truths, dtype=np.float64), np.asarray(values, dtype=np.float64)
    are_finite = np.isfinite(right) & np.isfinite(found)
    return Regressed(right[are_finite], found[are_finite])
