"""Joins predictions with their truths: a column of theirs, a file, or the feedback that a service received."""

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
from serving.monitoring.feedback.databases import StoreError
from serving.monitoring.feedback.store import open_store
from serving.monitoring.prediction_log.reading import is_log
from serving.settings import Settings

MODEL = "model"
"""Column of the log."""

FEEDBACK = "truth"
"""Column of the truth in the feedback's rows."""

TARGET = "truth of the row"
"""Column of the truth in joined rows."""


class Truths(NamedTuple):
    """Truths that are not in the file of the predictions."""

    rows: pd.DataFrame
    target: str
    """Column of the truth."""
    source: str
    """Where they are from, for messages."""
    on: list[str]
    """Columns to join by; empty chooses them by their names."""


class Predictions(NamedTuple):
    """Predictions with their truth in the column `TARGET`."""

    rows: pd.DataFrame
    columns: Columns
    n_unmatched: int = 0
    """Truths that match no prediction."""


def read_rows(file: Path, options: argparse.Namespace, settings: Settings) -> Predictions:
    """Returns the predictions with their truth.

    Args:
        file: of the predictions.
        options: those of `columns.add_row_options`.
        settings: of the service, whose feedback has the truth if the options name none.

    Raises:
        LifecycleError: a file or column cannot be read, or the two files cannot be joined.
    """
    named = named_columns(options)
    used = {*itertools.chain(*DEFAULTS.values()), TIME, PROBABILITIES, *REQUEST, KEY, *named}
    if options.truth is None and options.target is not None:
        rows = read(file, used | {options.target}, options)
        check_columns(rows, file, [options.target, *named])
        return Predictions(
            rows.assign(**{TARGET: to_texts(rows[options.target])}), find_columns(rows.columns, options)
        )
    rows = read(file, used, options)
    check_columns(rows, file, named)
    truths = read_truths(options)
    if truths is None and is_log(file):
        truths = read_feedback(settings, file, rows[MODEL].iloc[0])
    if truths is None:
        raise LifecycleError(
            f"no truth for {file}: name its column with --target, or a file of truths with --truth; for feedback, "
            "set SERVING_FEEDBACK_STORE and SERVING_LOG_PREDICTIONS as for the service"
        )
    joined, n_unmatched = join(rows, truths)
    return Predictions(joined, find_columns(rows.columns, options), n_unmatched)


def read_truths(options: argparse.Namespace) -> Truths | None:
    """Returns the truths of the file in the options; None if they name none.

    Raises:
        LifecycleError: the file or its column cannot be read.
    """
    if options.truth is None:
        return None
    if options.target is None:
        raise LifecycleError("--truth needs --target, the column of the truth")
    truths = read(options.truth, None, options)
    check_columns(truths, options.truth, [options.target])
    return Truths(truths, options.target, str(options.truth), options.on)


def read_feedback(settings: Settings, folder: Path, model: str) -> Truths | None:
    """Returns the truths that callers sent to a service; None without a feedback store.

    Args:
        settings: of the service.
        folder: of its prediction log.
        model: that answered.

    Raises:
        LifecycleError: the store cannot be read.
    """
    if settings.feedback_store is None:
        return None
    try:
        with open_store(settings.feedback_store.get_secret_value(), folder) as store:
            rows = pd.DataFrame(store.truths(model), columns=[*REQUEST, FEEDBACK])
    except StoreError as error:
        raise LifecycleError(f"the feedback store cannot be read: {error}") from None
    return Truths(rows, FEEDBACK, "the feedback store", list(REQUEST))


def join(rows: pd.DataFrame, truths: Truths) -> tuple[pd.DataFrame, int]:
    """Returns the predictions with their truth, and how many truths match none. Of truths with the same key, the last counts.

    Raises:
        LifecycleError: there is no column to join by.
    """
    on = truths.on or find_keys(rows, truths.rows)
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
