"""A model's real rows: its logged input example and the reference sample, as requests and as inputs."""

import base64
import datetime as dt
import logging
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serving.codecs.json import JsonDecoder
from serving.errors import RequestError
from serving.model.schema import Form, Inputs, Kind, Schema
from serving.prepare.fitted import fitted_parts
from serving.protocols.openapi import example_instance

log = logging.getLogger("serving.prepare")

MAX_EXAMPLES = 5
"""Rows of the logged input example kept for warm-up and documentation."""

MAX_SAMPLE_ROWS = 2_000
"""Rows of the reference sample, or of a large input example, that a compiled model is compared on."""


def example_body(logged: list[list[Any]], schema: Schema, model: Any) -> tuple[bytes, bool]:
    """Returns a request body, and whether its rows were logged (`logged_instances`).

    If no logged example fits the signature, one is generated from the types and the categories that the model's
    encoders know.
    """
    for instances in logged:
        body = msgspec.json.encode({"instances": instances[:MAX_EXAMPLES]})
        try:
            JsonDecoder(schema, MAX_EXAMPLES).predict(body)
        except RequestError as error:
            log.warning("the logged input example is not used: %s", error)
        else:
            return body, True
    instance = example_instance(schema)
    if schema.form is Form.RECORD:
        instance |= {
            name: cell for name, cell in known_cells(model, schema.names).items() if name in instance
        }
    return msgspec.json.encode({"instances": [instance]}), False


def known_cells(model: Any, columns: list[str]) -> dict[str, Any]:
    """Returns a known category for each column that an encoder of the fitted pipeline takes.

    Args:
        model: the pipeline.
        columns: names of its input, if it was fitted without names.
    """
    found: dict[str, Any] = {}
    for part, names in fitted_parts(model, columns):
        categories = getattr(part, "categories_", None)
        if isinstance(categories, list) and len(names) == len(categories):
            for name, known in zip(names, categories, strict=True):
                # A missing value among them comes last.
                if len(known) and isinstance(cell := _plain(known[0]), (str, bool, int, float)):
                    found.setdefault(name, cell)
    return found


def logged_instances(folder: Path, mlmodel: dict[str, Any], schema: Schema) -> list[list[Any]]:
    """Returns the possible examples, best first: the logged input example, then the reference sample."""
    found = []
    info = mlmodel.get("saved_input_example_info") or {}
    if info.get("artifact_path"):
        from mlflow.models import Model

        try:
            example = Model.load(str(folder)).load_input_example(str(folder))
            found.append(example_to_instances(example, schema))
        except Exception as error:  # noqa: BLE001  # anything that MLflow wrote and cannot read
            log.warning("the logged input example cannot be read: %s", type(error).__name__)
    found.append(logged_reference(folder))
    return [instances for instances in found if instances]


class _Reference(msgspec.Struct):
    instances: list[Any]


def logged_reference(folder: Path) -> list[Any]:
    """Returns the rows of the reference sample; empty without one."""
    reference = folder / "reference.json"
    if not reference.exists():
        return []
    try:
        return msgspec.json.decode(reference.read_bytes(), type=_Reference).instances
    except (ValueError, RecursionError):  # what msgspec raises is a ValueError, or about invalid UTF-8
        log.warning('reference.json is not of the form {"instances": […]}')
        return []


def spread(instances: list[Any]) -> list[Any]:
    """Returns up to `MAX_SAMPLE_ROWS` evenly spaced rows: files are often sorted."""
    n_rows = len(instances)
    if n_rows <= MAX_SAMPLE_ROWS:
        return instances
    return [instances[i * n_rows // MAX_SAMPLE_ROWS] for i in range(MAX_SAMPLE_ROWS)]


def example_to_instances(example: Any, schema: Schema) -> list[Any]:
    """Returns an MLflow input example as the instances of a request body.

    Args:
        example: a DataFrame, an array, a dict of arrays or of values, or a list.
        schema: of the model it was logged with.
    """
    import pandas as pd

    if isinstance(example, pd.DataFrame):
        example = example.set_axis([str(label) for label in example.columns], axis=1)
        binary = [c.name for c in schema.columns if c.type.kind is Kind.BINARY and c.name in example]
        rows = example.astype(object).where(example.notna(), None)
        for name in binary:
            rows[name] = rows[name].map(lambda v: base64.b64encode(v).decode() if v is not None else v)
        if schema.form is Form.RECORD:
            return [_plain(row) for row in rows.to_dict("records")]
        if schema.form is Form.ARRAY:
            return [_plain(list(row)) for row in rows.itertuples(index=False)]
        return [_plain(value) for value in rows.iloc[:, 0]]
    if isinstance(example, np.ndarray):
        return list(example.tolist())
    if isinstance(example, dict):
        values = {key: np.asarray(value) for key, value in example.items()}
        if all(value.ndim for value in values.values()):
            n_rows = min(len(value) for value in values.values())
            return [{key: value[i].tolist() for key, value in values.items()} for i in range(n_rows)]
        return [_plain(example)]
    return [_plain(item) for item in example] if isinstance(example, list) else [_plain(example)]


def _plain(value: Any) -> Any:
    """Converts NumPy's and pandas' types to Python's."""
    import pandas as pd

    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (pd.Timestamp, dt.datetime)):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def sample_instances(logged: list[list[Any]], examples: bytes) -> list[Any]:
    """Returns real rows as JSON values: the best that was logged, else the examples."""
    return logged[0] if logged else list(msgspec.json.decode(examples)["instances"])


def sample_inputs(logged: list[list[Any]], schema: Schema, examples: bytes) -> Inputs:
    """Returns all real rows, up to `MAX_SAMPLE_ROWS`; at least the examples."""
    decoder = JsonDecoder(schema, MAX_SAMPLE_ROWS)
    found = []
    for instances in logged:
        try:
            found.append(decoder.predict(msgspec.json.encode({"instances": spread(instances)}))[0])
        except RequestError as error:
            log.warning("a logged sample is not used: %s", error)
    largest = max(found, key=lambda inputs: inputs.n_rows, default=None)
    return largest if largest is not None else decoder.predict(examples)[0]


def reference_inputs(folder: Path, schema: Schema) -> Inputs | None:
    """Returns the rows of the reference sample, up to `MAX_SAMPLE_ROWS`; None if there is none that fits the signature."""
    instances = logged_reference(folder)
    if not instances:
        return None
    try:
        body = msgspec.json.encode({"instances": spread(instances)})
        return JsonDecoder(schema, MAX_SAMPLE_ROWS).predict(body)[0]
    except RequestError:
        return None  # logged by `sample_inputs`
