"""Finds the columns in which the signature allows null, but the model raises on it."""

import time
import traceback
import warnings
from typing import Any

import msgspec
import numpy as np

from serving.codecs.json import JsonDecoder
from serving.model.schema import Form, Kind, Schema
from serving.runtime import Runtime

MAX_SECONDS = 10.0
"""Time limit, for slow models."""


def find_refused_nulls(runtime: Runtime, schema: Schema, examples: bytes) -> dict[str, str]:
    """Returns the error that null causes, by column, such as `TfidfVectorizer raises ValueError`.

    Args:
        runtime: the model in its own library, whose classes the model's author knows.
        schema: its inputs.
        examples: a request that it answers.
    """
    instances = msgspec.json.decode(examples)["instances"]
    nullable = [
        position
        for position, column in enumerate(schema.columns)
        if column.may_be_missing and column.type.kind is not Kind.TENSOR
    ]
    decoder = JsonDecoder(schema, len(instances))
    # The runtime learns from this whether the model takes a frame or texts.
    runtime.predict(*decoder.predict(examples))

    def ask(positions: list[int]) -> str | None:
        """Returns the error that null in these columns causes; None if it is answered."""
        asked = instances[0]
        for position in positions:
            asked = _with_null(asked, schema, position)
        body = msgspec.json.encode({"instances": [asked]})
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                runtime.predict(*decoder.predict(body))
        except Exception as error:  # noqa: BLE001  # whatever it is, callers get 422
            return f"{_who_raised(error)} raises {type(error).__name__}"
        return None

    if not nullable or ask(nullable) is None:
        return {}
    give_up = time.monotonic() + MAX_SECONDS
    found = {}
    for position in nullable:
        if time.monotonic() > give_up:
            break
        if raised := ask([position]):
            found[schema.columns[position].name] = raised
    return found


def _with_null(row: Any, schema: Schema, position: int) -> Any:
    if schema.form is Form.BARE:
        return None
    if isinstance(row, dict):
        return row | {schema.columns[position].name: None}
    return [*row[:position], None, *row[position + 1 :]]


def _who_raised(error: BaseException) -> str:
    """Returns the innermost estimator that raised it."""
    own = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    estimators = [one for one in own if hasattr(one, "get_params")]
    return type(estimators[-1]).__name__ if estimators else "it"
