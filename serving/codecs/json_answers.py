"""Arrays of answers → JSON, with one format for all kinds of datetimes."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.codecs.media_types import Body
from serving.runtime import Output, count_output, slice_output

ENCODED_ROWS = 4096
"""Rows of a JSON answer that are Python objects at a time."""


def encode_hook(value: Any) -> Any:
    """Converts a model's own objects to JSON types."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


ENCODER = msgspec.json.Encoder(enc_hook=encode_hook)


def encode_rows(start: bytes, output: Output, rows: Callable[[Output], list[Any]], end: bytes) -> Body:
    """Returns a JSON answer with many rows, encoded some at a time."""
    whole = bytearray(start)
    for first in range(0, count_output(output), ENCODED_ROWS):
        part = slice_output(output, first, first + ENCODED_ROWS)
        whole += b"," if first else b""
        whole += memoryview(ENCODER.encode(rows(part)))[1:-1]
    whole += end
    return whole


def array_to_json(array: npt.NDArray[Any]) -> list[Any]:
    """Returns an array's elements, nested like its dimensions.

    Datetimes become text like those in requests: UTC without a zone, `2024-05-01T01:00:00`, with only the fractional
    digits needed. NaT is None.
    """
    if array.dtype.kind == "M":
        return _moments_to_text(array)
    values: list[Any] = array.tolist()
    return [_plain(value) for value in values] if array.dtype == object else values


def _moments_to_text(array: npt.NDArray[np.datetime64]) -> list[Any]:
    unit = np.datetime_data(array.dtype)[0]
    if unit in ("Y", "M", "W", "D", "h", "m"):
        array = array.astype("datetime64[s]")
    texts = np.datetime_as_string(array).astype(object)
    flat = [None if text == "NaT" else _without_zeros(text) for text in texts.ravel()]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    nested: list[Any] = out.reshape(array.shape).tolist()
    return nested


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(value: Any) -> Any:
    """Converts the datetimes in an object to text."""
    match value:
        case str() | int() | float() | None:
            return value
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case np.ndarray():
            return array_to_json(value) if value.ndim else _plain(value[()])
        case np.datetime64():
            return _moments_to_text(np.array([value]))[0]
        case dt.datetime():
            if value != value:  # noqa: PLR0124  # pandas' NaT is a datetime that does not equal itself
                return None
            if value.tzinfo is not None:
                value = value.astimezone(dt.UTC).replace(tzinfo=None)
            return _without_zeros(value.isoformat())
        case dt.date():
            return f"{value.isoformat()}T00:00:00"
        case _:
            return value
