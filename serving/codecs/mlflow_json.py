"""The JSON of MLflow's scoring protocol → `Inputs`: `dataframe_split`, `dataframe_records`, `instances` and `inputs`.

Source: mlflow/pyfunc/scoring_server/__init__.py and mlflow/utils/proto_json_utils.py. Unlike there, a value is never changed
to fit: 1.5 is no long.
"""

import gc
from typing import Any, NamedTuple

import msgspec

from serving.codecs.casting import NotFinite, json_type_name
from serving.codecs.json import check_params, check_row_count, parse_json
from serving.codecs.json_outline import text_bytes, weigh
from serving.codecs.lenient import loosen, quick_inputs
from serving.codecs.limits import SMALL_BYTES, check_rows, check_weight, holds_nested
from serving.codecs.media_types import Body
from serving.codecs.npy import named_to_inputs
from serving.errors import MalformedBody, PayloadTooLarge
from serving.model.schema import Form, Inputs, Kind, Schema

MAX_BYTES = 16_000_000
"""Of a body: its objects are made in one go, during which the worker does nothing else. Databricks has the same limit.

Source: docs.databricks.com, "Model Serving limits and regions", payload size.
"""

MAX_OBJECT_BYTES = 250_000_000
"""Of these objects: 16 MB of numbers with three digits have 200 MB."""

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")

_ROW_KINDS = frozenset({Kind.ARRAY, Kind.OBJECT})
"""With such a column an object of columns is one row. Source: mlflow.models.utils._enforce_schema."""

_CELLS = frozenset({Kind.ARRAY, Kind.TENSOR, Kind.ANY})
"""Kinds whose cells may be arrays."""


class _Table(NamedTuple):
    columns: dict[str, list[Any]]
    """Cells by column; if the signature has no names, in its order."""
    n_rows: int


def mlflow_json_to_inputs(body: Body, schema: Schema, max_rows: int) -> tuple[Inputs, dict[str, Any]]:
    """Reads rows and parameters.

    Raises:
        MalformedBody: not JSON, or of none of the forms.
        InvalidInput: rows or parameters that do not fit the signature.
        PayloadTooLarge: too many bytes, rows or values.
    """
    document, object_bytes = _parse(body)
    if not isinstance(document, dict):
        raise MalformedBody(
            f"the body must be a JSON object with one of the keys {', '.join(FORMS)}, got {json_type_name(document)}"
        )
    given = [form for form in FORMS if form in document]
    if len(given) != 1:
        raise MalformedBody(
            f"the body must have exactly one of the keys {', '.join(FORMS)}, got {' and '.join(given) or 'none'}"
        )
    (form,) = given
    table = _READERS[form](document[form], schema)
    check_row_count(table.n_rows, max_rows)
    check_rows(table.n_rows, schema)
    inputs = quick_inputs(table.columns, table.n_rows, schema)
    if inputs is None:
        inputs = _thorough_inputs(table, schema)
    if object_bytes and holds_nested(schema):
        inputs = Inputs(inputs.columns, inputs.n_rows, object_bytes)
    return inputs, _read_params(document.get("params"), schema)


def _thorough_inputs(table: _Table, schema: Schema) -> Inputs:
    values = {
        column.name: loosen(table.columns[column.name], column)
        for column in schema.columns
        if column.name in table.columns
    }
    return named_to_inputs(values, table.n_rows, schema)


def _parse(body: Body) -> tuple[Any, int]:
    """The document, and the memory of its objects if it is not small."""
    n_bytes = 0
    if len(body) > MAX_BYTES:
        raise PayloadTooLarge(
            f"JSON of more than {MAX_BYTES / 1e6:.0f} MB is not read here; send Parquet or CSV, or fewer rows"
        )
    if len(body) > SMALL_BYTES:
        text = bytes(body)
        n_bytes = weigh(text) + 2 * text_bytes(text)
        check_weight(n_bytes, "the rows")
        if n_bytes > MAX_OBJECT_BYTES:
            raise PayloadTooLarge(
                "JSON with so many values is not read here; send Parquet or CSV, or fewer rows"
            )
    # See `serving.codecs.json.parse_json`.
    gc.disable()
    try:
        return msgspec.json.decode(body), n_bytes
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # pandas and MLflow's own client write a missing value as NaN, which is not JSON.
        return parse_json(body, parse_constant=_constant), n_bytes
    finally:
        gc.enable()


def _constant(token: str) -> NotFinite | None:
    return None if token == "NaN" else NotFinite(token)  # noqa: S105  # a token of JSON


def _read_params(params: Any, schema: Schema) -> dict[str, Any]:
    """The known ones; null is passed on."""
    if not schema.params or params is None:
        return {}
    if not isinstance(params, dict):
        return check_params(params, schema)
    known = {param.name for param in schema.params}
    given = {name: value for name, value in params.items() if name in known}
    cast = check_params({name: value for name, value in given.items() if value is not None}, schema)
    return {name: cast.get(name) for name in given}


def _read_split(value: Any, schema: Schema) -> _Table:
    form = "dataframe_split"
    if not isinstance(value, dict):
        raise _wrong(form, "an object with data, and optionally columns and index", value)
    if "data" not in value or not value.keys() <= {"columns", "data", "index"}:
        raise MalformedBody(f"{form} must have the key data, optionally columns and index, and no others")
    data, columns, index = value["data"], value.get("columns"), value.get("index")
    if not isinstance(data, list):
        raise _wrong(f"{form}.data", "an array of rows", data)
    if index is not None and (not isinstance(index, list) or len(index) != len(data)):
        raise MalformedBody(f"{form}.index must have one entry for each row of data")
    if columns is None:
        return _rows_to_table(data, form, schema, None)
    if not isinstance(columns, list):
        raise _wrong(f"{form}.columns", "an array of names", columns)
    # As the names of a signature; see `serving.model.schema.Column.label`.
    names = [name if isinstance(name, str) else str(_to_label(name)) for name in columns]
    if len(set(names)) != len(names):
        raise MalformedBody(f"{form}.columns names a column twice")
    return _rows_to_table(data, form, schema, names)


def _to_label(value: Any) -> Any:
    return tuple(map(_to_label, value)) if isinstance(value, list) else value


def _read_records(value: Any, schema: Schema) -> _Table:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise _wrong("dataframe_records", "an array of objects", value)
    return _objects_to_table(value, schema)


def _read_values(value: Any, schema: Schema) -> _Table:
    """`instances` and `inputs`: rows, an object of columns, or a tensor."""
    if isinstance(value, dict):
        return _columns_to_table(value, schema)
    if not isinstance(value, list):
        value = [value]
    if value and all(isinstance(row, dict) for row in value) and schema.form is not Form.BARE:
        return _objects_to_table(value, schema)
    if len(schema.columns) == 1:
        return _cells_to_table(value, schema)
    if schema.form is Form.RECORD:
        raise MalformedBody(
            "instances and inputs must have the columns' names: rows as objects, or one object of columns; or send "
            "dataframe_split"
        )
    return _rows_to_table(value, "the rows", schema, None)


_READERS = {
    "dataframe_split": _read_split,
    "dataframe_records": _read_records,
    "inputs": _read_values,
    "instances": _read_values,
}


def _columns_to_table(value: dict[str, Any], schema: Schema) -> _Table:
    """Columns with their cells; or one row, if their values are no arrays."""
    if schema.form is not Form.RECORD:
        raise MalformedBody("the model's signature has no names; send the rows as an array")
    known = {name: value[name] for name in schema.names if name in value}
    if any(column.type.kind in _ROW_KINDS for column in schema.columns) or not any(
        isinstance(cells, list) for cells in known.values()
    ):
        return _Table({name: [cell] for name, cell in known.items()}, 1)
    lengths = {len(cells) if isinstance(cells, list) else -1 for cells in known.values()}
    if len(lengths) > 1:
        raise MalformedBody("the columns must be arrays of one length")
    return _Table(known, max(lengths))


def _objects_to_table(rows: list[dict[str, Any]], schema: Schema) -> _Table:
    """Rows with names; one that lacks a column has a missing value there."""
    if schema.form is Form.RECORD:
        names = [name for name in schema.names if any(name in row for row in rows)]
        return _Table({name: [row.get(name) for row in rows] for name in names}, len(rows))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _in_order([[row.get(name) for row in rows] for name in names[: len(schema.columns)]], rows, schema)


def _cells_to_table(cells: list[Any], schema: Schema) -> _Table:
    """The rows of a model with one column; each may be in an array."""
    (column,) = schema.columns
    if column.type.kind not in _CELLS and all(isinstance(cell, list) and len(cell) == 1 for cell in cells):
        cells = [cell[0] for cell in cells]
    return _Table({column.name: cells}, len(cells))


def _rows_to_table(rows: list[Any], form: str, schema: Schema, names: list[str] | None) -> _Table:
    """Rows without names, or with those of `names`."""
    if len(schema.columns) == 1 and schema.columns[0].type.kind is Kind.TENSOR:
        if names is None or schema.columns[0].name not in names:
            return _Table({schema.columns[0].name: rows}, len(rows))
    elif not any(isinstance(row, list) for row in rows):
        rows = [[row] for row in rows]
    lengths = {len(row) if isinstance(row, list) else -1 for row in rows}
    if names is not None:
        lengths.add(len(names))
    if len(lengths) > 1:
        raise MalformedBody(f"{form} must have rows as arrays of one length, with one value for each column")
    columns = [list(cells) for cells in zip(*rows, strict=True)]
    if schema.form is not Form.RECORD:
        return _in_order(columns, rows, schema)
    names = [str(position) for position in range(len(columns))] if names is None else names
    return _Table(dict(zip(names, columns, strict=False)), len(rows))


def _in_order(columns: list[list[Any]], rows: list[Any], schema: Schema) -> _Table:
    """Columns of a signature without names; more than it has are dropped."""
    return _Table(dict(zip(schema.names, columns, strict=False)), len(rows))


def _wrong(form: str, expected: str, value: Any) -> MalformedBody:
    got = "other elements" if isinstance(value, list) and "array" in expected else json_type_name(value)
    return MalformedBody(f"{form} must be {expected}, got {got}")
