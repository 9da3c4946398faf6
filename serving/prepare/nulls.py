"""Finds what a model takes for a missing value: NaN or None, which scikit-learn treats as different values.

JSON has one null. A model fitted on objects may know None as a category, one fitted on pandas' text knows NaN; to
either model the other value is an unknown category.
"""

import time
from typing import Any

import msgspec
import numpy as np

from serving.codecs.casting import INTEGER_LIMITS
from serving.model.schema import NAN, NONE, Column, Inputs, Kind, Schema, take
from serving.prepare.checks.parity import ask, same_output
from serving.prepare.fitted import fitted_parts
from serving.runtime import Output
from serving.runtime.native import NativeRuntime

TRIED = frozenset({Kind.STRING, Kind.BOOLEAN, Kind.INTEGER, Kind.LONG, Kind.ANY})
"""Kinds tried on a model without categories. Not floats: that would try every numeric column in vain."""

MAX_ROWS = 20
"""Of the sample, that each of the two is tried on."""

MAX_SECONDS = 10.0
"""Time limit for all columns of a slow model."""

UNSEEN = "\x00never seen"
"""A category that no model knows."""


def learn_nulls(runtime: NativeRuntime, schema: Schema, sample: Inputs) -> dict[str, str]:
    """Returns the model's missing value, for the columns where it differs from pandas' default for the type.

    Args:
        runtime: the original.
        schema: its inputs, as MLflow wrote them.
        sample: real rows.
    """
    learned = _categories_of(runtime.model, schema)
    give_up = time.monotonic() + MAX_SECONDS
    found = {}
    for position, column in enumerate(schema.columns):
        if not column.may_be_missing or column.type.kind in (Kind.DATETIME, Kind.TENSOR):
            continue
        usual = NONE if column.missing is None else NAN
        known = learned.get(column.name, set())
        null: str | None = usual
        if len(known) == 1:
            null = known.pop()
        elif column.type.kind in TRIED and time.monotonic() < give_up:
            null = _tried(runtime, schema, sample, position)
        if null not in (usual, None):
            found[column.name] = str(null)
    return found


def _categories_of(model: Any, schema: Schema) -> dict[str, set[str]]:
    """The missing values among a fitted model's categories, by column."""
    found: dict[str, set[str]] = {}
    for part, names in fitted_parts(model, schema.names):
        categories = getattr(part, "categories_", None)
        if not isinstance(categories, list) or len(names) != len(categories):
            continue
        for name, known in zip(names, categories, strict=True):
            for cell in np.asarray(known, dtype=object).tolist():
                if cell is None or cell != cell:  # noqa: PLR0124  # true of NaN only
                    found.setdefault(name, set()).add(NONE if cell is None else NAN)
    return found


def _tried(runtime: NativeRuntime, schema: Schema, sample: Inputs, position: int) -> str | None:
    """Which of the two the model accepts, or tells from an unknown category; None if both or neither."""
    rows = take(sample, 0, MAX_ROWS)
    column = schema.columns[position]

    def ask_with(null: str, cell: Any) -> Output | Exception:
        """The model's answer to the rows with one cell in all of the column."""
        columns: list[Column] = list(schema.columns)
        columns[position] = msgspec.structs.replace(column, null=null)
        is_number = null == NAN and column.type.kind in INTEGER_LIMITS
        arrays = list(rows.columns)
        arrays[position] = np.full(rows.n_rows, cell, dtype=np.float64 if is_number else object)
        asked = runtime.with_schema(msgspec.structs.replace(schema, columns=tuple(columns)))
        return ask(lambda inputs: asked.predict(inputs, {}), Inputs(tuple(arrays), rows.n_rows))

    answers = {NAN: ask_with(NAN, np.nan), NONE: ask_with(NONE, None)}
    answered = [null for null, answer in answers.items() if isinstance(answer, Output)]
    if len(answered) < 2:
        return answered[0] if answered else None
    nan, none = answers[NAN], answers[NONE]
    if column.type.kind is not Kind.STRING or _is_same(nan, none):
        return None
    unseen = ask_with(NAN, UNSEEN)
    if _is_same(nan, unseen) == _is_same(none, unseen):
        return None
    return NONE if _is_same(nan, unseen) else NAN


def _is_same(one: Output | Exception, other: Output | Exception) -> bool:
    return isinstance(one, Output) and isinstance(other, Output) and same_output(one, other)
