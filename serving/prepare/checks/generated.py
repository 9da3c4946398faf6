"""Generates rows from a sample of real ones, to compare a compiled model with the original."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.model.schema import DTYPES, Column, Inputs, Kind, Schema

STRANGE_TEXTS = ("", " ", "?", "unknown", "Ärger ✓", "0", "nan", "None", "x" * 300)
"""Texts that a model was hardly trained on."""

ORDINARY_ROWS, VARIED_ROWS, EXTREME_ROWS, OVERFLOWING_ROWS = 10_000, 1_500, 1_000, 64


WITHIN = ("ordinary", "missing values", "unknown texts")
"""Groups whose numbers stay between the smallest and the largest real one: a logarithm, for one, fails below."""


class Group(NamedTuple):
    """Rows of one kind, predicted in one call; a model that refuses one row fails the call."""

    name: str
    inputs: Inputs


def generate_groups(schema: Schema, sample: Inputs, words: list[str], seed: int = 0) -> Iterator[Group]:
    """Yields more than 10,000 rows.

    Args:
        schema: of the model.
        sample: real rows, the more the better.
        words: texts that the model knows, of any column.
        seed: of the random numbers.
    """
    generator = _Generator(np.array([*words, *STRANGE_TEXTS], dtype=object), np.random.default_rng(seed))
    for name, n_rows in (
        ("ordinary", ORDINARY_ROWS),
        ("further numbers", VARIED_ROWS),
        ("missing values", VARIED_ROWS),
        ("unknown texts", VARIED_ROWS),
        ("extreme numbers", EXTREME_ROWS),
        ("overflowing numbers", OVERFLOWING_ROWS),
    ):
        columns = tuple(
            generator.column(column, values, n_rows, name)
            for column, values in zip(schema.columns, sample.columns, strict=True)
        )
        yield Group(name, Inputs(columns, n_rows))


class _Generator(NamedTuple):
    strange: npt.NDArray[Any]
    rng: np.random.Generator

    def column(self, column: Column, sample: npt.NDArray[Any], n_rows: int, group: str) -> npt.NDArray[Any]:
        """Values of the column, drawn independently of the other columns, changed as the group requires."""
        values = sample[self.rng.integers(len(sample), size=n_rows)]
        if column.type.kind is Kind.STRING and group == "unknown texts":
            drawn = self.strange[self.rng.integers(len(self.strange), size=n_rows)]
            values = np.where(self.rng.random(n_rows) < 0.3, drawn, values)
        elif values.dtype.kind in "iuf":
            values = _numbers(values, sample, group, self.rng)
        if group == "missing values":
            values = _with_missing(values, column, self.rng)
        return values


def _numbers(
    values: npt.NDArray[Any], sample: npt.NDArray[Any], group: str, rng: np.random.Generator
) -> npt.NDArray[Any]:
    known = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    scale = float(np.abs(known.astype(np.float64)).max()) if known.size else 1.0
    # With a single value the spread is unknown: take its distance from 0.
    spread = float(known.std()) or scale if known.size else 1.0
    shape = values.shape
    with np.errstate(over="ignore", invalid="ignore"):
        out = values
        # Integers are often categories; a model may refuse unknown ones.
        if values.dtype.kind == "f" or group not in ("ordinary", "further numbers"):
            moved = values + rng.normal(0, max(spread, 1e-3), shape)
            if group in WITHIN:
                moved = moved.clip(*_range(known))
            out = np.where(rng.random(shape) < 0.5, moved, values)
        special = {
            "extreme numbers": np.array(
                [0.0, -0.0, 1, -1, 1e-9, 1e-40, 1e-300, scale, -scale, scale * 1e3, -scale * 1e3, scale * 1e6]
            ),
            "overflowing numbers": np.array([3e38, -3e38, 4e38, 1e300, -1e300, 2.0**53, -(2.0**53)]),
        }.get(group)
        if special is not None:
            out = np.where(rng.random(shape) < 0.3, special[rng.integers(len(special), size=shape)], out)
        return cast_within(out, values.dtype)


def _range(known: npt.NDArray[Any]) -> tuple[float, float]:
    """The smallest and largest real number; for a single value, a range around it with its sign."""
    if not known.size:
        return -1.0, 1.0
    low, high = float(known.min()), float(known.max())
    if low < high:
        return low, high
    return (min(low / 2, low * 2), max(low / 2, low * 2)) if low else (0.0, 1.0)


def cast_within(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Returns the values in a dtype, clipped to its limits; integers are rounded."""
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return np.asarray(values.clip(-limit, limit).astype(dtype))
    limits = np.iinfo(dtype)
    # The largest 64-bit integer is not a double; 2^53 is large enough.
    low, high = max(limits.min, -(2**53)), min(limits.max, 2**53)
    return np.asarray(np.nan_to_num(values).round().clip(low, high).astype(dtype))


def _with_missing(values: npt.NDArray[Any], column: Column, rng: np.random.Generator) -> npt.NDArray[Any]:
    if not column.may_be_missing or column.type.kind is Kind.TENSOR:
        return values
    missing = rng.random(len(values)) < 0.2
    missing[-1] |= column.type.kind in DTYPES
    if values.dtype.kind in "biu":
        is_number = values.dtype.kind != "b" and column.missing is not None
        values = values.astype(np.float64 if is_number else object)
    values = values.copy()
    values[missing] = "NaT" if values.dtype.kind == "M" else column.missing
    return values
