"""A second opinion: sends JSON rows through MLflow's own parser to the model.

Comparing the compiled model with the original cannot reveal errors in our decoder, which feeds both. Here none of our
code stands between the JSON and the model.
"""

import json
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from serving.codecs.json import JsonDecoder
from serving.errors import ModelRefused
from serving.model.schema import MAY_BE_MISSING, Column, Form, Kind, Schema
from serving.prepare.checks.parity import same_output
from serving.runtime import Output, Runtime, count_output
from serving.runtime.native import Frame, NativeRuntime, asking

log = logging.getLogger("serving.prepare")

MAX_ROWS, MAX_SINGLE_ROWS = 100, 10
"""Of the sample: together, and alone, since columns of a frame with one row may have other dtypes."""

MAX_SECONDS = 10.0
"""Time limit for a slow model."""

NULLABLE = MAY_BE_MISSING - {Kind.ANY}
"""Kinds whose null MLflow passes on. A boolean null becomes False, an integer null is rejected."""


def check_mlflow_agrees(
    served: Runtime, native: NativeRuntime, schema: Schema, signature: str, instances: list[Any]
) -> int:
    """Compares our answers with those of MLflow's own path to the model.

    Args:
        served: the runtime that will answer.
        native: the model in its own library.
        schema: its inputs.
        signature: the same in MLflow's JSON.
        instances: rows as JSON values.

    Returns:
        The number of answers compared; 0 if MLflow's path rejects all rows, or if column labels are not text, which
        it mixes up.

    Raises:
        ModelRefused: they differ; says for which kind of row.
    """
    if schema.labels != schema.names:
        return 0  # MLflow takes a label that is not text for a position
    give_up = time.monotonic() + MAX_SECONDS
    n_compared = 0
    for name, rows in _groups(schema, instances):
        if time.monotonic() > give_up:
            break
        expected = _ask_mlflow(native, schema, signature, rows)
        again = _ask_mlflow(native, schema, signature, rows)
        if expected is None or again is None or not same_output(expected, again):
            continue  # MLflow rejects the rows, or the model is random
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                body = json.dumps({"instances": rows}).encode()
                got = served.predict(JsonDecoder(schema, len(rows)).predict(body)[0], {})
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # an error is not a wrong answer
            log.warning(
                "%s: MLflow answers, but the service would reject it (%s)", name, type(error).__name__
            )
            continue
        if not same_output(expected, got):
            raise ModelRefused(
                f"{name}: the service's answer would differ from that of MLflow's own path from JSON to the model; "
                "please report this, with the signature and the model's type"
            )
        n_compared += 1
    return n_compared


def _groups(schema: Schema, instances: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    yield "the sample", instances[:MAX_ROWS]
    for row in instances[:MAX_SINGLE_ROWS]:
        yield "a row of the sample, alone", [row]
    for position, column in enumerate(schema.columns):
        if column.type.kind in NULLABLE:
            row = _with_null(instances[0], schema, position)
            if row is not None:
                yield f"a row with null in {column.name!r}", [row]
                yield f"a row with null in {column.name!r}, among others", [row, *instances[:2]]


def _with_null(row: Any, schema: Schema, position: int) -> Any:
    if schema.form is Form.RECORD and isinstance(row, dict):
        return row | {schema.columns[position].name: None}
    if schema.form is Form.ARRAY and isinstance(row, list):
        return [*row[:position], None, *row[position + 1 :]]
    return None


def _ask_mlflow(native: NativeRuntime, schema: Schema, signature: str, rows: list[Any]) -> Output | None:
    """The model's answer to rows parsed as by MLflow's scoring server; None if either rejects them."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            frame = native.as_taken(_to_frame(schema, signature, rows))
            with asking():
                output = _ask_model(native, frame)
            return output if count_output(output) == len(rows) else None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # MLflow rejects more rows than the service
        log.debug("MLflow's path rejects rows: %s", type(error).__name__)
        return None


def _ask_model(native: NativeRuntime, frame: Frame) -> Output:
    model = native.model
    if not hasattr(model, "get_params"):
        return native.predict_frame(frame, {})
    predicted = np.asarray(model.predict(frame))
    if native.description.task != "classification":
        return Output(values=predicted)
    has_probabilities = native.description.has_probabilities
    return Output(predicted, np.asarray(model.predict_proba(frame)) if has_probabilities else None)


def _to_frame(schema: Schema, signature: str, rows: list[Any]) -> Any:
    from mlflow.models.utils import _enforce_schema
    from mlflow.pyfunc.scoring_server import _split_data_and_params, infer_and_parse_data
    from mlflow.types import Schema as MlflowSchema

    theirs = MlflowSchema.from_json(signature)
    if any(column.type.kind is Kind.TENSOR for column in schema.columns):
        body: dict[str, Any] = {"instances": rows}
    else:
        cells = [_cells(row, schema) for row in rows]
        split = {"columns": schema.labels, "data": cells} if schema.form is Form.RECORD else {"data": cells}
        body = {"dataframe_split": split}
    data, _ = _split_data_and_params(json.dumps(body))  # type: ignore[no-untyped-call]
    frame: Any = _enforce_schema(infer_and_parse_data(data, theirs), theirs)
    for position, column in enumerate(schema.columns):
        if column.type.kind is Kind.STRING and isinstance(frame, pd.DataFrame):
            name = frame.columns[position]
            frame[name] = _as_learned(frame[name], column)
    return frame


def _cells(row: Any, schema: Schema) -> list[Any]:
    if schema.form is Form.RECORD:
        return [row.get(column.name) for column in schema.columns]
    return row if schema.form is Form.ARRAY else [row]


def _as_learned(cells: Any, column: Column) -> Any:
    """Text with the model's missing value: pandas makes it None in a single row, NaN among others."""
    if column.missing is not None:
        return pd.Series(cells.tolist(), index=cells.index, dtype="str")
    return pd.Series([None if pd.isna(c) else c for c in cells.tolist()], index=cells.index, dtype=object)
