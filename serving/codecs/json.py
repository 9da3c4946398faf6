"""JSON → `Inputs`, by two paths.

The fast path is msgspec with types built from the signature: it accepts the rows of well-behaved clients and never
guesses. Whatever it rejects, the thorough path reads again, cell by cell; it alone decides what is valid, and writes the
error messages. So the fast path may reject too much, but never accepts what the thorough path would not, or reads it
differently.

Large bodies are read in pieces, by either path; see `serving.codecs.large_json`.
"""

import gc
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from serving.codecs.casting import (
    MAX_DIGITS,
    Mismatch,
    NotFinite,
    cast_cell,
    cells_to_column,
    expected_name,
    json_type_name,
    short,
)
from serving.codecs.fast_json import FastRows
from serving.codecs.faults import MAX_HINTS, Faults, did_you_mean, refuse
from serving.codecs.json_outline import LARGE_BYTES, Span, text_bytes, weigh
from serving.codecs.limits import OBJECT_BYTES, SMALL_BYTES, holds_nested
from serving.codecs.media_types import Body
from serving.errors import MAX_DETAILS, Detail, InvalidInput, MalformedBody, PayloadTooLarge
from serving.model.schema import Column, Form, Inputs, Kind, Schema, Type


class JsonDecoder:
    """Decodes the bodies of `predict` and `predict_batch` for one schema."""

    def __init__(self, schema: Schema, max_rows: int) -> None:
        self._schema = schema
        self._max_rows = max_rows
        self._is_nested = holds_nested(schema)
        self._records = FastRows(schema, schema.form)
        self._arrays = FastRows(schema, Form.BARE if schema.form is Form.BARE else Form.ARRAY)
        self._predict = msgspec.json.Decoder(
            msgspec.defstruct(
                "Body",
                [("instances", list[self._records.row_type]), ("params", dict[str, Any] | None, None)],  # type: ignore[name-defined]
                forbid_unknown_fields=True,
                gc=False,
            )
        )

    def predict(self, body: Body) -> tuple[Inputs, dict[str, Any]]:
        """Decodes `{"instances": […], "params": {…}}`.

        Raises:
            MalformedBody: not JSON.
            InvalidInput: not of this form, or rows that do not fit the signature.
            PayloadTooLarge: too many rows, or too many values.
        """
        if len(body) > LARGE_BYTES:
            return self._read_predict(_parse_outline(body, 2), body)
        try:
            decoded: Any = self._predict.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._read_predict(parse_json(body), body)
        check_row_count(len(decoded.instances), self._max_rows)
        inputs = self._records.inputs(decoded.instances, has_null=b"null" in body)
        if inputs is None:
            return self._read_predict(parse_json(body), body)
        return self._weighed(inputs, body), check_params(decoded.params, self._schema)

    def batch(self, body: Body) -> Inputs:
        """Decodes `[[…], …]`, the values of a row in the order of the signature.

        Raises: as `predict`.
        """
        if len(body) > LARGE_BYTES:
            return self._read_batch(_parse_outline(body, 1), body)
        try:
            rows = self._arrays.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            rows = None
        if rows is not None:
            check_row_count(len(rows), self._max_rows)
            inputs = self._arrays.inputs(rows, has_null=b"null" in body)
            if inputs is not None:
                return self._weighed(inputs, body)
        return self._read_batch(parse_json(body), body)

    def _read_batch(self, rows: Any, body: Body) -> Inputs:
        if not isinstance(rows, (list, Span)):
            detail = Detail("array of rows", json_type_name(rows))
            raise InvalidInput("the body must be a JSON array of rows", [detail])
        return self._read_rows(rows, self._arrays, body)

    def _read_predict(self, document: Any, body: Body) -> tuple[Inputs, dict[str, Any]]:
        if not isinstance(document, dict) or not isinstance(document.get("instances"), (list, Span)):
            if isinstance(document, dict):
                got = json_type_name(document["instances"]) if "instances" in document else "nothing"
                detail = Detail("array", got, column="instances")
            else:
                detail = Detail("object", json_type_name(document))
            raise InvalidInput('the body must be a JSON object {"instances": [row, …]}', [detail])
        unknown = [
            Detail("no such key", json_type_name(value), column=short(key))
            for key, value in itertools.islice(document.items(), MAX_DETAILS + 2)
            if key not in ("instances", "params")
        ]
        if unknown:
            message = 'the body may have the keys "instances" and "params"'
            raise InvalidInput(message, unknown[:MAX_DETAILS])
        inputs = self._read_rows(document["instances"], self._records, body)
        return inputs, check_params(document.get("params"), self._schema)

    def _read_rows(self, rows: list[Any] | Span, fast: FastRows, body: Body) -> Inputs:
        """The thorough path; for a large body only if the fast one fails."""
        if isinstance(rows, Span):
            from serving.codecs.large_json import read_long_rows

            return read_long_rows(body, rows, self._schema, fast, self._max_rows)
        return self._weighed(read_rows(rows, self._schema, fast.form, self._max_rows), body)

    def _weighed(self, inputs: Inputs, body: Body) -> Inputs:
        """Adds the memory of lists and maps, unless the body is too small to count."""
        if not self._is_nested or len(body) * OBJECT_BYTES <= SMALL_BYTES:
            return inputs
        text = bytes(body)
        return Inputs(inputs.columns, inputs.n_rows, weigh(text) + text_bytes(text))


def _parse_outline(body: Body, level: int) -> Any:
    # Imported on the first large body: a circular import.
    from serving.codecs.large_json import parse_outline

    return parse_outline(body, level)


def check_row_count(n_rows: int, max_rows: int) -> None:
    """Rejects an empty request, and one with too many rows.

    Raises:
        InvalidInput: there is no row.
        PayloadTooLarge: more than `max_rows`.
    """
    if n_rows == 0:
        raise InvalidInput("there must be at least one row", [Detail("at least one row", "none")])
    if n_rows > max_rows:
        raise PayloadTooLarge(f"{n_rows} rows are more than the limit of {max_rows} (SERVING_MAX_ROWS)")


def parse_json(
    body: Body,
    offset: int | None = None,
    mistake: str | None = None,
    parse_constant: Callable[[str], Any] = NotFinite,
) -> Any:
    """Parses JSON, with `NotFinite` for NaN, Infinity and numbers beyond any double.

    Args:
        body: the text.
        offset: of its first byte in the whole body; None if this is all of it.
        mistake: the message for wrong syntax, if its position in this text means nothing to the caller.
        parse_constant: returns the value of the tokens NaN, Infinity and -Infinity.

    Raises:
        MalformedBody: it is empty or not JSON.
    """
    if not body or body.isspace():
        raise MalformedBody("the body is empty; expected JSON")
    # With millions of brackets, the garbage collector would scan all objects repeatedly: 5 times slower.
    gc.disable()
    try:
        # Given bytes, json would guess UTF-16 and UTF-32, but exchanged JSON is UTF-8: RFC 8259, section 8.1.
        text = body.decode("utf-8-sig")
        return json.loads(text, parse_constant=parse_constant, parse_int=_parse_int, parse_float=_parse_float)
    except json.JSONDecodeError as error:
        if mistake is not None:
            raise MalformedBody(f"the body is not JSON: {mistake}") from None
        where = f"line {error.lineno}, column {error.colno}"
        if offset is not None:
            where = f"byte {offset + len(error.doc[: error.pos].encode(errors='surrogatepass'))}"
        # Some of Python's messages end with "at" themselves.
        raise MalformedBody(f"the body is not JSON: {error.msg.removesuffix(' at')} at {where}") from None
    except UnicodeDecodeError:
        raise MalformedBody("the body is not JSON: it is not UTF-8 text") from None
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None
    finally:
        gc.enable()


def _parse_int(text: str) -> int | NotFinite:
    return int(text) if len(text) <= MAX_DIGITS else NotFinite("integer beyond 64 bits")


def _parse_float(text: str) -> float | NotFinite:
    number = float(text)
    return number if abs(number) != float("inf") else NotFinite("number too large")


def read_rows(
    rows: Sequence[Any],
    schema: Schema,
    form: Form,
    max_rows: int,
    first_row: int = 0,
    *,
    faults: Faults | None = None,
) -> Inputs:
    """The thorough path: casts every cell of decoded rows.

    Args:
        rows: decoded, of the form.
        schema: of the model.
        form: of each row.
        max_rows: the limit.
        first_row: the number of the first of them in the request.
        faults: of earlier rows; faults of these rows are added.

    Raises:
        InvalidInput: there are faults.
        PayloadTooLarge: too many rows.
    """
    check_row_count(len(rows), max_rows)
    faults = Faults(schema.names) if faults is None else faults
    cells: list[list[Any]] = [[] for _ in schema.columns]
    names = frozenset(schema.names)
    unread = [one for one in enumerate(schema.columns) if not faults.has_enough(one[1].name)]
    for index, row in enumerate(rows, first_row):
        if faults.is_full:
            break
        values = _row_to_values(row, index, schema, form, faults)
        if values is None:
            continue
        if values.keys() != names:
            _check_keys(values, index, schema, faults)
        for position, column in unread:
            if column.name not in values:
                cells[position].append(None)
                continue
            try:
                cells[position].append(cast_cell(values[column.name], column))
            except Mismatch as mismatch:
                name = f"{column.name}{mismatch.path}"
                faults.add(column.name, Detail(mismatch.expected, mismatch.got, index, name))
                if faults.has_enough(column.name):
                    unread = [one for one in unread if one[1] is not column]
    if faults:
        refuse(faults.told())
    columns = []
    for column, column_cells in zip(schema.columns, cells, strict=True):
        try:
            columns.append(cells_to_column(column_cells, column))
        except ValueError:  # np.stack: a -1 dimension of another length in another row
            refuse([Detail(str(column.type), "rows of different shapes", None, column.name)])
    return Inputs(tuple(columns), len(rows))


def _row_to_values(row: Any, index: int, schema: Schema, form: Form, faults: Faults) -> dict[str, Any] | None:
    """The row's cells by column name; None (and a fault) if the row itself has the wrong shape."""
    if form is Form.BARE:
        return {schema.columns[0].name: row}
    if form is Form.ARRAY:
        n_columns = len(schema.columns)
        if not isinstance(row, list):
            faults.add(None, Detail(f"array of {n_columns} values{schema.order}", json_type_name(row), index))
        elif len(row) != n_columns:
            faults.add(
                None, Detail(f"array of {n_columns} values{schema.order}", f"array of {len(row)}", index)
            )
        else:
            return dict(zip(schema.names, row, strict=True))
        return None
    if not isinstance(row, dict):
        faults.add(None, Detail("object with the columns as keys", json_type_name(row), index))
        return None
    return row


def _check_keys(row: dict[str, Any], index: int, schema: Schema, faults: Faults) -> None:
    """Reports unknown keys and missing columns."""
    known = set(schema.names)
    unknown = ((key, value) for key, value in row.items() if key not in known)
    for key, value in itertools.islice(unknown, MAX_DETAILS):
        faults.add_unknown(key, json_type_name(value), index, row)
    for column in schema.columns:
        if column.required and column.name not in row and not faults.has_enough(column.name):
            faults.add(column.name, Detail(expected_name(column), "nothing", index, column.name))


def check_params(params: Any, schema: Schema) -> dict[str, Any]:
    """Returns the parameters that a request sets, cast to their types.

    Raises:
        InvalidInput: a parameter is not in the signature, or has another type.
    """
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise InvalidInput(
            '"params" must be an object', [Detail("object", json_type_name(params), column="params")]
        )
    known = {param.name: param for param in schema.params}
    out: dict[str, Any] = {}
    details: list[Detail] = []
    for name, value in params.items():
        param = known.get(name)
        if param is None:
            expected = "no such parameter"
            if len(details) < MAX_HINTS:
                expected += did_you_mean(name, [one for one in known if one not in params])
            details.append(Detail(expected, json_type_name(value), column=f"params.{short(name)}"))
            if len(details) == MAX_DETAILS:
                break
            continue
        type_ = Type(Kind.ARRAY, items=param.type) if param.is_list else param.type
        try:
            out[name] = cast_cell(value, Column(name, type_))
        except Mismatch as mismatch:
            column = f"params.{name}{mismatch.path}"
            details.append(Detail(mismatch.expected, mismatch.got, column=column))
    if details:
        refuse(details)
    return out
