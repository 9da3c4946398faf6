"""What a missing value is to a model: NaN or None, which scikit-learn takes for two different values.

JSON has one null. A model that was fitted on objects may know None as a category, one that was fitted on pandas' text
knows NaN; the other of the two is as strange to it as a word that it has never seen.
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
"""Kinds of which a model that holds no categories is asked. Of floats that would be each of its numbers, in vain."""

MAX_ROWS = 20
"""Of the sample, that a model is asked with either."""

MAX_SECONDS = 10.0
"""After so long a slow model is asked no further."""

UNSEEN = "\x00never seen"
"""No word of any model."""


def learn_nulls(runtime: NativeRuntime, schema: Schema, sample: Inputs) -> dict[str, str]:
    """Returns what a missing value is to a model, for the columns where it is not what pandas makes of the kind.

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
    """Which missing values are among the categories that a fitted model holds, by column."""
    found: dict[str, set[str]] = {}
    for part, names in fitted_parts(model, schema.names):
        categories = getattr(part, "categories_", None)
        if not isinstance(categories, list) or len(names) != len(categories):
            continue
        for name, known in zip(names, categories, strict=True):
            for cell in np.asarray(known, dtype=object).tolist():
                if cell is None or cell != cell:  # noqa: PLR0124  # that is what NaN is
                    found.setdefault(name, set()).add(NONE if cell is None else NAN)
    return found


def _tried(runtime: NativeRuntime, schema: Schema, sample: Inputs, position: int) -> str | None:
    """Which of the two the model answers otherwise than a word that it has never seen, or at all; None if either."""
    rows = take(sample, 0, MAX_ROWS)
    column = schema.columns[position]

    def ask_with(null: str, cell: Any) -> Output | Exception:
        """What the model says of the rows with one cell in all of the column."""
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
