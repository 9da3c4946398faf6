"""Whether two answers say the same."""

import math
from collections.abc import Sequence
from typing import Any

TOLERANCE = 1e-6
"""Of a number, and at least of 1: what a compiled model may differ by from the original. Source: docs/performance.md."""


def flatten(value: Any) -> list[Any]:
    """Returns the scalars of one row's answer, whatever they are nested in."""
    if isinstance(value, dict):
        return [scalar for item in value.values() for scalar in flatten(item)]
    if isinstance(value, (list, tuple)):
        return [scalar for item in value for scalar in flatten(item)]
    return [value]


def numbers_of(prediction: dict[str, Any]) -> list[Any]:
    """Returns what `predict_batch` answers for the row that `predict` answers so: probabilities, label or value."""
    for key in ("probabilities", "label", "value"):
        if key in prediction:
            return flatten(prediction[key])
    return []


def find_difference(expected: Sequence[Sequence[Any]], got: Sequence[Sequence[Any]]) -> str:
    """Returns what differs first between two answers of the same rows; nothing where they say the same."""
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
    """Whether two scalars are the same but for rounding; NaN is null."""
    if is_number(a) and is_number(b):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b or (_is_missing(a) and _is_missing(b))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and not a boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
