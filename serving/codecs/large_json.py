"""Large JSON bodies → `Inputs`, a piece of whole rows at a time.

The parser holds the GIL for some milliseconds at most, the objects of a piece are freed before the next one is read, and
too many rows, or values, are rejected before all of them are in memory.
"""

import random
import re
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.codecs.casting import cells_to_column
from serving.codecs.fast_json import FastRows
from serving.codecs.faults import Faults, refuse
from serving.codecs.json import parse_json, read_rows
from serving.codecs.json_outline import (
    LARGE_BYTES,
    WEIGHTS,
    Span,
    find_long,
    text_bytes,
    weigh,
)
from serving.codecs.limits import ROW_PART, check_weight, holds_nested, row_bytes
from serving.codecs.media_types import Body
from serving.errors import Detail, InvalidInput, MalformedBody, PayloadTooLarge
from serving.model.schema import Column, Form, Inputs, Schema


def parse_outline(body: Body, level: int) -> Any:
    """Parses a body, with a `Span` for a long array of rows in it.

    Args:
        body: the text.
        level: depth of the rows: 1 for `[row, …]`, 2 for `{"instances": [row, …]}`.

    Raises:
        MalformedBody: it is not JSON.
        PayloadTooLarge: the rest, besides the rows, is too large to parse at once.
    """
    spans = find_long(body, level if _OBJECT.match(body) else 1)
    # Each is replaced by an unguessable random word.
    word = f"{random.getrandbits(128):x} "
    parts, end = [], 0
    for position, span in enumerate(spans):
        ends = bytes((body[span.start], body[span.stop]))
        if ends not in (b"[]", b"{}"):
            raise MalformedBody("the body is not JSON: its brackets do not match")
        parts += [bytes(body[end : span.start]), f'["{word}{position}"]'.encode()]
        end = span.stop + 1
    if sum(map(len, parts)) + len(body) - end > LARGE_BYTES:
        raise PayloadTooLarge(f"the body has more than {LARGE_BYTES} bytes beside its rows")
    around = b"".join([*parts, bytes(body[end:])])
    document = parse_json(around, mistake="what is around its rows cannot be read")

    def restore(value: Any, *, is_params: bool = False) -> Any:
        match value:
            case [str(name)] if name.startswith(word):
                span = spans[int(name.removeprefix(word))]
                if is_params:
                    return _parse_params(body, span)
                return span if body[span.start] == ord("[") else {}
        return value

    if not isinstance(document, dict):
        return restore(document)
    return {key: restore(value, is_params=key == "params") for key, value in document.items()}


_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")


def _parse_params(body: Body, span: Span) -> Any:
    text = bytes(body[span.start : span.stop + 1])
    check_weight(weigh(text) + 2 * text_bytes(text), '"params"', ROW_PART)
    return parse_json(text, span.start)


def read_long_rows(body: Body, span: Span, schema: Schema, fast: FastRows, max_rows: int) -> Inputs:
    """Reads the rows of a large body.

    Raises:
        MalformedBody: they are not JSON.
        InvalidInput: with up to `MAX_DETAILS` of the cells that do not fit the signature.
        PayloadTooLarge: too many rows, or too many values.
    """
    parts: list[list[npt.NDArray[Any]]] = [[] for _ in schema.columns]
    faults, others = Faults(schema.names), list[Detail]()
    load = _Load(schema, fast.form)
    n_rows = 0
    for start, stop in span.pieces:
        text = b"".join((b"[", memoryview(body)[start:stop], b"]"))
        weight = load.weigh(text)
        try:
            rows = fast.decode(text)
            inputs = fast.inputs(rows, has_null=b"null" in text) if rows else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            inputs = None
        try:
            if inputs is None:
                rows = parse_json(text, start - 1)
                if not rows and span.cuts:
                    raise MalformedBody(f"the body is not JSON: a row is missing at byte {start}")
                inputs = read_rows(rows, schema, fast.form, max_rows, n_rows, faults=faults)
        except InvalidInput as error:
            others = others or error.details
            if faults.is_full:
                break
        else:
            if not faults:
                load.keep(text, weight, inputs.n_rows)
                for part, values in zip(parts, inputs.columns, strict=True):
                    part.append(values)
        n_rows += len(rows)
        if n_rows > max_rows:
            raise PayloadTooLarge(f"more rows than the limit of {max_rows} (SERVING_MAX_ROWS)")
    # Different shapes are reported once, and only if nothing else is wrong.
    if faults or others:
        refuse(faults.told() or others[:1])
    columns = []
    for part, column in zip(parts, schema.columns, strict=True):
        columns.append(join_column(part, column))
        part.clear()
    return Inputs(tuple(columns), n_rows, load.objects)


class _Load:
    """Memory of a body's rows as Python objects."""

    def __init__(self, schema: Schema, form: Form) -> None:
        types = [column.type for column in schema.columns]
        self._is_nested = holds_nested(schema)
        self._number_bytes, self._object_bytes = row_bytes(schema)
        # What holds the cells of a row is gone once they are in columns.
        self._row_weight = {
            Form.RECORD: WEIGHTS[b"{"] + len(types) * (WEIGHTS[b":"] + WEIGHTS[b","]),
            Form.ARRAY: WEIGHTS[b"["] + len(types) * WEIGHTS[b","],
            Form.BARE: WEIGHTS[b","],
        }[form]
        self._numbers = 0
        self.objects = 0
        """Bytes."""

    def weigh(self, text: bytes) -> int:
        """Returns the memory of rows while they are parsed, if it is more than some megabytes or kept.

        Raises:
            PayloadTooLarge: it is too much for one row, or a few.
        """
        if not self._is_nested and len(text) <= LARGE_BYTES:
            return 0
        weight = weigh(text)
        # The parser makes one string of the whole text, and slices the others from it.
        check_weight(weight + 2 * text_bytes(text), "a row", ROW_PART)
        return weight

    def keep(self, text: bytes, weight: int, n_rows: int) -> None:
        """Counts the memory that rows keep until they are answered.

        Raises:
            PayloadTooLarge: the total is too much.
        """
        if self._is_nested:
            self.objects += max(0, weight - n_rows * self._row_weight)
        if self._is_nested or self._object_bytes:
            self.objects += n_rows * self._object_bytes + text_bytes(text)
        self._numbers += n_rows * self._number_bytes
        check_weight(self._numbers + self.objects, "the rows")


def join_column(parts: list[npt.NDArray[Any]], column: Column) -> npt.NDArray[Any]:
    """Returns the parts of a column as one array, as `cells_to_column` would for the whole.

    Raises:
        InvalidInput: tensors of different shapes.
    """
    if len({part.dtype for part in parts}) > 1:
        # Some parts had missing integers or booleans, others had none.
        return cells_to_column([cell for part in parts for cell in _to_cells(part)], column)
    try:
        return np.concatenate(parts)
    except ValueError:
        refuse([Detail(str(column.type), "rows of different shapes", None, column.name)])
        raise


def _to_cells(part: npt.NDArray[Any]) -> list[Any]:
    is_float = part.dtype.kind == "f"
    # A missing cell became NaN.
    return [None if cell != cell else int(cell) if is_float else cell for cell in part.tolist()]  # noqa: PLR0124
