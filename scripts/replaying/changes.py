"""Compares two versions' answers to the same rows."""

import math
from collections import Counter
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from scripts.evaluating.files import PROBABILITY
from scripts.lifecycle import LifecycleError

Kind = Literal["label", "value", "output"]

WORDS: dict[Kind, str] = {"label": "labels", "value": "numbers", "output": "other answers"}

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Changes(msgspec.Struct, frozen=True):
    """How a version's answers differ from the champion's."""

    kind: Kind
    """The log's column of the answers."""
    are_changed: Mask
    """By row."""
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    probability_differences: Floats | None
    """By row, the largest of any class; None without probabilities of common classes."""

    def describe(self, rows: Mask) -> dict[str, Any]:
        """Returns the facts about some rows, at least one."""
        n_rows, n_changed = int(rows.sum()), int(self.are_changed[rows].sum())
        facts: dict[str, Any] = {"rows": n_rows, "changed": n_changed, "changed_ratio": n_changed / n_rows}
        if self.kind == "value":
            differences = (self.after - self.before)[rows]
            finite = differences[np.isfinite(differences)]
            facts |= {
                "mean_difference": float(finite.mean()) if len(finite) else None,
                "mean_absolute_difference": float(np.abs(finite).mean()) if len(finite) else None,
                "largest_difference": float(np.abs(finite).max()) if len(finite) else None,
            }
        if self.probability_differences is not None:
            moved = self.probability_differences[rows]
            moved = moved[~np.isnan(moved)]
            facts |= {
                "mean_probability_difference": float(moved.mean()) if len(moved) else None,
                "largest_probability_difference": float(moved.max()) if len(moved) else None,
            }
        return facts

    @property
    def transitions(self) -> list[dict[str, Any]]:
        """The labels that change, the commonest first; empty if the answers are not labels."""
        if self.kind != "label":
            return []
        pairs = zip(self.before[self.are_changed], self.after[self.are_changed], strict=True)
        return [{"from": old, "to": new, "rows": n} for (old, new), n in Counter(pairs).most_common()]


def compare(before: pd.DataFrame, after: pd.DataFrame, tolerance: float) -> Changes:
    """Returns the changes from one version's answers to another's.

    Args:
        before: the columns of the log, with `PROBABILITY` columns instead of the map.
        after: the same rows of the other version.
        tolerance: relative difference up to which numbers are equal.

    Raises:
        LifecycleError: the answers are of different kinds.
    """
    kinds = [_kind(answers) for answers in (before, after)]
    if kinds[0] != kinds[1]:
        raise LifecycleError(
            f"the version in the log answers with {WORDS[kinds[0]]}, the other with {WORDS[kinds[1]]}: "
            "they cannot be compared"
        )
    kind = kinds[0]
    ours, theirs = (
        answers[kind].to_numpy(dtype=float if kind == "value" else object) for answers in (before, after)
    )
    if kind == "value":
        are_equal = np.isclose(theirs, ours, rtol=tolerance, atol=0, equal_nan=True)
    elif kind == "label":
        are_equal = np.array([old == new for old, new in zip(ours, theirs, strict=True)], dtype=np.bool_)
    else:
        are_equal = np.array(
            [_is_same(*pair, tolerance) for pair in zip(ours, theirs, strict=True)], dtype=np.bool_
        )
    return Changes(kind, ~are_equal, ours, theirs, _probability_differences(before, after))


def _kind(answers: pd.DataFrame) -> Kind:
    kinds: tuple[Kind, ...] = ("label", "value", "output")
    # A regression may answer every row with NaN.
    return next((kind for kind in kinds if answers[kind].notna().any()), "value")


def _is_same(ours: str | None, theirs: str | None, tolerance: float) -> bool:
    """Whether two answers in JSON are the same, except for numbers within the tolerance."""
    if ours is None or theirs is None:
        return ours is theirs
    return ours == theirs or _are_close(msgspec.json.decode(ours), msgspec.json.decode(theirs), tolerance)


def _are_close(ours: Any, theirs: Any, tolerance: float) -> bool:
    match ours, theirs:
        case bool(), bool():
            return ours is theirs
        case int() | float(), int() | float():
            return math.isclose(ours, theirs, rel_tol=tolerance)
        case list(), list():
            return len(ours) == len(theirs) and all(map(_are_close, ours, theirs, [tolerance] * len(ours)))
        case dict(), dict():
            return ours.keys() == theirs.keys() and all(
                _are_close(ours[key], theirs[key], tolerance) for key in ours
            )
        case _:
            return bool(ours == theirs)


def _probability_differences(before: pd.DataFrame, after: pd.DataFrame) -> Floats | None:
    names = [name for name in before if str(name).startswith(PROBABILITY) and name in after]
    if not names:
        return None
    differences = np.abs(after[names].to_numpy(float) - before[names].to_numpy(float))
    return np.asarray(differences.max(axis=1))
