"""Detects rows in a validation file that a version was trained on, by the rows that were logged with it."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from scripts.training.registration import REFERENCE_FILE
from serving.codecs.json import JsonDecoder
from serving.errors import RequestError
from serving.model.schema import Inputs, Schema
from serving.prepare.checks.examples import logged_instances

MIN_SHARE_OF_SAMPLE = 0.05
"""Of the training rows that `train.py` logs with a version: fewer hardly change a score."""

MIN_SHARE_OF_EXAMPLE = 0.5
"""Of an input example: it is often taken before the rows are split, so that every file has a part of it."""

N_DEVIATIONS = 3
"""Standard deviations above chance that count as overlap; a binomial count exceeds them once in 700 times."""


class Overlap(NamedTuple):
    """Rows logged with a version that are in the file."""

    n_found: int
    n_logged: int
    is_sample: bool
    """True for a sample of the training rows, False for the input example."""

    def describe(self, version: str, file: str) -> str:
        """Returns the warning."""
        found = f"{self.n_found:,} of the {self.n_logged:,}"
        if self.is_sample:
            return (
                f"warning: {found} training rows logged with version {version} are in {file}: scores on training rows "
                "say little about new ones; validate on others"
            )
        return (
            f"warning: {found} example rows logged with version {version} are in {file}: if it was trained on "
            "this file, scores say little about new rows; validate on others"
        )


def find_overlap(folder: Path, mlmodel: dict[str, Any], schema: Schema, rows: Inputs) -> Overlap | None:
    """Returns how many rows of a model's sample, or else of its example, are in the file; None if that may be chance.

    Args:
        folder: the model's files.
        mlmodel: the contents of its MLmodel file.
        schema: its inputs.
        rows: of the file.
    """
    logged = logged_instances(folder, mlmodel, schema)
    if not logged:
        return None
    try:
        kept, _ = JsonDecoder(schema, len(logged[-1])).predict(msgspec.json.encode({"instances": logged[-1]}))
    except RequestError:
        return None
    # A column that only one of them has, such as an identifier, cannot be compared.
    shared = [
        at
        for at, pair in enumerate(zip(kept.columns, rows.columns, strict=True))
        if all(map(_has_value, pair))
    ]
    there = Counter(_keys(rows.columns[at] for at in shared))
    n_found = sum(key in there for key in _keys(kept.columns[at] for at in shared))
    is_sample = (folder / REFERENCE_FILE).exists()
    overlap = Overlap(n_found, kept.n_rows, is_sample)
    return overlap if is_notable(overlap, there.values(), rows.n_rows) else None


def is_notable(overlap: Overlap, times: Iterable[int], n_rows: int) -> bool:
    """Whether the overlap is more than new rows that happen to equal rows of the file.

    Args:
        overlap: what was found.
        times: how often each distinct row is in the file.
        n_rows: of the file.

    Source: the file has a new row of the same population with a probability of 1 minus the share of its rows that occur
    once. I. J. Good, The population frequencies of species and the estimation of population parameters, 1953.
    """
    chance = 1 - sum(n == 1 for n in times) / n_rows
    expected = overlap.n_logged * chance
    deviation = math.sqrt(expected * (1 - chance))
    least = overlap.n_logged * (MIN_SHARE_OF_SAMPLE if overlap.is_sample else MIN_SHARE_OF_EXAMPLE)
    return overlap.n_found >= max(least, 1) and overlap.n_found > expected + N_DEVIATIONS * deviation


def _has_value(column: np.ndarray[Any, Any]) -> bool:
    if column.dtype.kind == "O":
        return any(value is not None and value == value for value in column.tolist())  # noqa: PLR0124  # NaN is not
    return not bool(np.isnan(column).all()) if column.dtype.kind == "f" else True


def _keys(columns: Iterable[np.ndarray[Any, Any]]) -> list[bytes]:
    """Returns a key for each row."""
    return [msgspec.msgpack.encode(row, enc_hook=str) for row in zip(*map(_cells, columns), strict=True)]


def _cells(column: np.ndarray[Any, Any]) -> list[Any]:
    # Integers come as floats if one of them is missing.
    if column.dtype.kind in "iu":
        return list(column.astype(np.float64).tolist())
    return [float(value) if type(value) is int else value for value in column.tolist()]
