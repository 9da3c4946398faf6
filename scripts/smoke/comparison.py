"""Compares two answers."""

import math
from collections.abc import Sequence
from typing import Any

TOLERANCE = 1e-6
"""Allowed difference of a compiled model from the original, relative and absolute. Source: docs/performance.md."""


def flatten(value: Any) -> list[Any]:
    """Returns the scalars of one row's answer, however they are nested."""
    if isinstance(value, dict):
        return [scalar for item in value.values() for scalar in flatten(item)]
    if isinstance(value, (list, tuple)):
        return [scalar for item in value for scalar in flatten(item)]
    return [value]


def numbers_of(prediction: dict[str, Any]) -> list[Any]:
    """Returns what `predict_batch` answers in place of this prediction: probabilities, label or value."""
    for key in ("probabilities", "label", "value"):
        if key in prediction:
            return flatten(prediction[key])
    return []


def find_difference(expected: Sequence[Sequence[Any]], got: Sequence[Sequence[Any]]) -> str:
    """Returns the first difference between two answers for the same rows; empty if there is none."""
    if len(expected) != len(got):
        return f"{len(got)} rows for {len(expected)}"
    for row, (one, other) in enumerate(zip(expected, got, strict=True)):
        if len(one) != len(other):
            return f"row {row}: {len(other)} numbers for {len(one)}"
        for a, b in zip(one, other, strict=True):
            if not is_same(a, b):
                return f"row {row}: {b!r:.40} for {a!r:.40}"
    return ""


def is_same(a: Any, b: Any) -> bool:
    """Whether two scalars are equal except for rounding; NaN equals null."""
    if is_number(a) and is_number(b):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b or (_is_missing(a) and _is_missing(b))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and not a boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
