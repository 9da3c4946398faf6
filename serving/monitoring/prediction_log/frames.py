"""Messages in a stream of bytes, each with its length, checksum and number of rows."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct("<III")

MAX_BYTES = 1 << 31
"""Of a payload; a longer one is damage."""


class Frame(NamedTuple):
    """A message with its header."""

    whole: bytes
    n_rows: int

    @property
    def payload(self) -> memoryview:
        """The message without its header."""
        return memoryview(self.whole)[_HEADER.size :]


class Damaged(Exception):
    """The bytes are not a sequence of frames."""


def pack(payload: bytes, n_rows: int) -> bytes:
    """Returns a frame's bytes."""
    return _HEADER.pack(len(payload), zlib.crc32(payload), n_rows) + payload


def take_frames(buffer: bytearray) -> list[Frame]:
    """Removes the complete frames from the start of a buffer and returns them.

    Raises:
        Damaged: the buffer does not start with a frame.
    """
    frames = []
    start = 0
    while len(buffer) - start >= _HEADER.size:
        n_bytes, checksum, n_rows = _HEADER.unpack_from(buffer, start)
        end = start + _HEADER.size + n_bytes
        if n_bytes > MAX_BYTES:
            raise Damaged
        if len(buffer) < end:
            break
        frame = Frame(bytes(memoryview(buffer)[start:end]), n_rows)
        if zlib.crc32(frame.payload) != checksum:
            raise Damaged
        frames.append(frame)
        start = end
    del buffer[:start]
    return frames


READ_BYTES = 1 << 20


def read_frames(path: Path) -> Iterator[Frame]:
    """Yields a file's frames; ends at an incomplete or damaged one, the end of a file whose writer crashed.

    Raises:
        OSError: it cannot be read.
    """
    buffer = bytearray()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            buffer += part
            try:
                yield from take_frames(buffer)
            except Damaged:
                return
