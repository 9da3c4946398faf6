"""What the messages of an Arrow stream say of the data that follows them, before any of it is read.

pyarrow does not tell, so this reads the flatbuffers. Source: Arrow's format/Message.fbs; a field's position there
is its number here.
"""

import struct
from collections import defaultdict
from typing import Any

from serving.codecs.limits import check_weight
from serving.errors import MalformedBody, PayloadTooLarge
from serving.model.schema import Schema

MAX_MESSAGES = 10_000
"""Batches and dictionaries that a stream may have: of 100,000 rows, one for every ten."""

SCHEMA_BYTES = 1_000_000
COLUMN_BYTES = 4_000
"""Bytes that a stream's schema may have, and more of them for each column that the signature has."""

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""Source: Arrow's format/Message.fbs, union MessageHeader."""


class _Table:
    """A table of a flatbuffer. Source: FlatBuffers' Internals, "Tables"."""

    def __init__(self, buffer: memoryview, place: int) -> None:
        self._buffer = buffer
        self._place = place

    def field(self, number: int, form: str) -> int:
        """A number of a table; 0 where it is left out."""
        place = self._find(number)
        return int(struct.unpack_from(form, self._buffer, place)[0]) if place else 0

    def table(self, number: int) -> "_Table | None":
        """A table in a table; None where it is left out."""
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
    """Returns the rows that the batches of a stream say they have.

    Args:
        messages: a `pyarrow.ipc.MessageReader`.
        schema: what the rows are for.

    Raises:
        MalformedBody: buffers are compressed: kilobytes of it can be gigabytes.
        PayloadTooLarge: too many messages, a schema too long, or dictionaries that grow over and over.
        struct.error: no stream.
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
            # What was there is copied for each addition.
            copied_bytes += dictionary_bytes[name] if is_delta else 0
            check_weight(copied_bytes, "the dictionaries of the Arrow stream")
        else:
            data = batch
            n_rows += batch.field(0, "<q")
        if data is not None and data.table(3) is not None:
            raise MalformedBody("compressed Arrow streams are not read; write it without compression")
    return n_rows
