"""Checks the metadata of an Arrow stream's messages before their data is read.

pyarrow does not expose it, so this reads the flatbuffers. Source: Arrow's format/Message.fbs; a field's position there
is its number here.
"""

import struct
from collections import defaultdict
from typing import Any

from serving.codecs.limits import check_weight
from serving.errors import MalformedBody, PayloadTooLarge
from serving.model.schema import Schema

MAX_MESSAGES = 10_000
"""Maximum of batches and dictionaries in a stream: for 100,000 rows, one for every ten."""

SCHEMA_BYTES = 1_000_000
COLUMN_BYTES = 4_000
"""Maximum size of a stream's schema, and the addition for each column of the signature."""

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""Source: Arrow's format/Message.fbs, union MessageHeader."""


class _Table:
    """A table of a flatbuffer. Source: FlatBuffers' Internals, "Tables"."""

    def __init__(self, buffer: memoryview, place: int) -> None:
        self._buffer = buffer
        self._place = place

    def field(self, number: int, form: str) -> int:
        """A number in the table; 0 if absent."""
        place = self._find(number)
        return int(struct.unpack_from(form, self._buffer, place)[0]) if place else 0

    def table(self, number: int) -> "_Table | None":
        """A table in the table; None if absent."""
        place = self._find(number)
        return _follow(self._buffer, place) if place else None

    def _find(self, number: int) -> int:
        (offset,) = struct.unpack_from("<i", self._buffer, self._place)
        (length,) = struct.unpack_from("<H", self._buffer, self._place - offset)
        if 4 + 2 * number >= length:
            return 0
        (where,) = struct.unpack_from("<H", self._buffer, self._place - offset + 4 + 2 * number)
        return self._place + where if where else 0


def _follow(buffer: memoryview, place: int) -> _Table:
    return _Table(buffer, place + int(struct.unpack_from("<I", buffer, place)[0]))


def count_rows(messages: Any, schema: Schema) -> int:
    """Returns the number of rows that a stream's batches declare.

    Args:
        messages: a `pyarrow.ipc.MessageReader`.
        schema: of the model.

    Raises:
        MalformedBody: buffers are compressed: kilobytes can expand to gigabytes.
        PayloadTooLarge: too many messages, a schema that is too long, or dictionaries that keep growing.
        struct.error: not a stream.
    """
    n_rows = 0
    dictionary_bytes: dict[int, int] = defaultdict(int)
    copied_bytes = 0
    for position, message in enumerate(messages):
        if position == 0 and len(message.metadata) > SCHEMA_BYTES + COLUMN_BYTES * len(schema.columns):
            raise PayloadTooLarge("the schema of the Arrow stream is too long for the model's signature")
        if position > MAX_MESSAGES:
            raise PayloadTooLarge(f"the Arrow stream has more than {MAX_MESSAGES} batches and dictionaries")
        root = _follow(memoryview(message.metadata), 0)
        kind, batch = root.field(1, "<B"), root.table(2)
        if batch is None or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
            continue
        if kind == _DICTIONARY_BATCH:
            name, is_delta = batch.field(0, "<q"), batch.field(2, "<B")
            data = batch.table(1)
            size = len(message.body)
            dictionary_bytes[name] = size + (dictionary_bytes[name] if is_delta else 0)
            # Each addition copies the existing entries.
            copied_bytes += dictionary_bytes[name] if is_delta else 0
            check_weight(copied_bytes, "the dictionaries of the Arrow stream")
        else:
            data = batch
            n_rows += batch.field(0, "<q")
        if data is not None and data.table(3) is not None:
            raise MalformedBody("compressed Arrow streams are not supported; write it without compression")
    return n_rows
