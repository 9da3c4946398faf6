"""Joins predictions with their truths."""

import argparse
import itertools
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from scripts.evaluating.columns import DEFAULTS, Columns, find_columns, named_columns
from scripts.evaluating.files import (
    KEY,
    PROBABILITIES,
    REQUEST,
    TIME,
    check_columns,
    find_keys,
    read,
    to_texts,
)
from scripts.lifecycle import LifecycleError

TARGET = "truth of the row"
"""Column of the truth in joined rows."""


class Truths(NamedTuple):
    """Truths that are not in the file of the predictions."""

    rows: pd.DataFrame
    target: str
    """Column of the truth."""
    source: str
    """Where they are from, for messages."""


class Predictions(NamedTuple):
    """Predictions with their truth in the column `TARGET`."""

    rows: pd.DataFrame
    columns: Columns
    n_unmatched: int = 0
    """Truths that match no prediction."""


def read_rows(file: Path, options: argparse.Namespace) -> Predictions:
    """Returns the predictions with their truth.

    Args:
        file: of the predictions.
        options: those of `columns.add_row_options`.

    Raises:
        LifecycleError: a file or column cannot be read, or the two files cannot be joined.
    """
    named = named_columns(options)
    used = {*itertools.chain(*DEFAULTS.values()), TIME, PROBABILITIES, *REQUEST, KEY, *named}
    if options.truth is None:
        rows = read(file, used | {options.target}, options)
        check_columns(rows, file, [options.target, *named])
        return Predictions(
            rows.assign(**{TARGET: to_texts(rows[options.target])}), find_columns(rows.columns, options)
        )
    rows = read(file, used, options)
    check_columns(rows, file, named)
    joined, n_unmatched = join(rows, read_truths(options), options.on)
    return Predictions(joined, find_columns(rows.columns, options), n_unmatched)


def read_truths(options: argparse.Namespace) -> Truths:
    """Returns the truths of the file in the options.

    Raises:
        LifecycleError: the file or its column cannot be read.
    """
    truths = read(options.truth, None, options)
    check_columns(truths, options.truth, [options.target])
    return Truths(truths, options.target, str(options.truth))


def join(rows: pd.DataFrame, truths: Truths, on: list[str]) -> tuple[pd.DataFrame, int]:
    """Returns the predictions with their truth, and how many truths match none. Of truths with the same key, the last counts.

    Args:
        rows: the predictions.
        truths: to join.
        on: columns to join by; empty chooses them by their names.

    Raises:
        LifecycleError: there is no column to join by.
    """
    on = on or find_keys(rows, truths.rows)
    if not on:
        raise LifecycleError(
            f"{truths.source} has neither request_id nor key, or the predictions do not; name the column to join by with --on"
        )
    check_columns(truths.rows, truths.source, on)
    if on == [REQUEST[0]] and REQUEST[1] in rows and rows[REQUEST[1]].nunique() > 1:
        raise LifecycleError(
            f"{truths.source} needs the column 'row' beside request_id: some requests have several rows"
        )
    keys = truths.rows[on].apply(to_texts).assign(**{TARGET: to_texts(truths.rows[truths.target])})
    keys = keys.dropna(subset=on).drop_duplicates(on, keep="last")
    left = rows.drop(columns=TARGET, errors="ignore")
    left[on] = rows[on].apply(to_texts)
    joined = left.merge(keys, how="left", on=on)
    n_unmatched = len(keys) - len(keys.merge(left[on].drop_duplicates(), on=on))
    return joined.assign(**{name: rows[name].to_numpy() for name in on}), n_unmatched
