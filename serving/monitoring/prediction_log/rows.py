"""The message from workers to the log: rows of one model, by column."""

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.model.schema import DTYPES, Column, Kind, Schema

INPUT, HASHED = "input_", "hash_"
"""Prefixes of the log's columns of inputs, plain and hashed."""

TEXT, BYTES, JSON = "string", "binary", "json"
"""Types of columns besides NumPy's names."""


class Field(msgspec.Struct, frozen=True, array_like=True):
    """A column of the log."""

    name: str
    type: str
    """NumPy's name of the type, `string`, `binary`, or `json` for nested values as text."""
    shape: tuple[int, ...] = ()
    """Of a tensor's row; -1 is any length."""

    @property
    def dtype(self) -> npt.DTypeLike | None:
        """The type of its values if they are sent as an array's memory; else None."""
        return None if self.type in (TEXT, BYTES, JSON) or -1 in self.shape else np.dtype(self.type)

    @property
    def n_values(self) -> int:
        """Values of a row."""
        return math.prod(self.shape)


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """Rows of requests that one version of a model has answered."""

    model: str
    version: str
    classes: tuple[str, ...]
    """Of the probabilities."""
    fields: tuple[Field, ...]
    """The inputs."""
    # By request:
    request_ids: list[str]
    times: list[float]
    """When it was answered, in seconds since 1970."""
    latencies_ms: list[float]
    roles: list[str]
    n_rows: list[int]
    first_rows: list[int]
    """Position of the first row in its request: a large request is sent in parts."""
    # By row:
    keys: list[str | None]
    labels: list[str | None] | None
    probabilities: bytes | None
    """Doubles, one for each class; NaN in rows without them."""
    values: bytes | None
    """Doubles; NaN in rows without one."""
    others: list[str | None] | None
    """Other outputs, as JSON."""
    inputs: list[bytes | list[Any]]
    """By field: the memory of an array, or a list of values with None for missing ones."""
    # Later fields have defaults: a message without them comes from an older service, and an older one ignores them.
    params: list[str | None] | None = None
    """By request: its parameters as JSON; None if no request has any."""


_TYPES = {
    Kind.STRING: TEXT,
    Kind.BINARY: BYTES,
    Kind.ARRAY: JSON,
    Kind.OBJECT: JSON,
    Kind.MAP: JSON,
    Kind.ANY: JSON,
}


def field_of(column: Column, *, is_hashed: bool) -> Field:
    """Returns the log's column of an input."""
    kind = column.type.kind
    if is_hashed:
        return Field(f"{HASHED}{column.name}", TEXT)
    name = f"{INPUT}{column.name}"
    if kind is Kind.TENSOR:
        dtype = column.type.dtype
        return Field(name, TEXT if dtype == "str" else dtype, column.type.shape)
    return Field(name, _TYPES[kind] if kind in _TYPES else np.dtype(DTYPES[kind]).name)


def fields_of(schema: Schema, excluded: frozenset[str], hashed: frozenset[str]) -> dict[int, Field]:
    """Returns the log's columns of a model's inputs, by position.

    Args:
        schema: of the inputs.
        excluded: names of inputs that are left out; `*` for all.
        hashed: names of inputs whose values are hashed.
    """
    return {
        position: field_of(column, is_hashed=column.name in hashed)
        for position, column in enumerate(schema.columns)
        if "*" not in excluded and column.name not in excluded
    }
