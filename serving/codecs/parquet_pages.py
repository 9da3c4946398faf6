"""Reads what a Parquet file's pages say of themselves, before they are decompressed.

pyarrow does not expose it, so this reads the headers. Source: parquet-format's parquet.thrift, `PageHeader`, and Thrift's
compact protocol; a field's number there is its number here.
"""

from typing import Any

from serving.codecs.limits import check_weight
from serving.codecs.media_types import Body
from serving.errors import MalformedBody, PayloadTooLarge

MAX_PAGES = 20_000
"""Maximum of pages in a file: for 100,000 rows and 1,000 columns, twenty for each."""

MAX_HEADER_BYTES = 100_000
"""Maximum of a page's header, which holds the column's smallest and largest value."""

MAX_DEPTH = 8

_DELTA_BYTE_ARRAY = 7
"""Texts as the end of the text before: each may be as long as all before it. Source: parquet.thrift, `Encoding`."""

_ENCODINGS = {5: 2, 7: 2, 8: 4}
"""Fields of `PageHeader` with a header of a kind of page, and the field of its encoding."""


class Pages:
    """The pages of a file that will be read."""

    def __init__(self, body: Body) -> None:
        self._body = memoryview(body)
        self._n_pages = 0
        self._n_bytes = 0

    def add(self, chunk: Any) -> None:
        """Counts the pages of a column chunk, a `pyarrow.parquet.ColumnChunkMetaData`.

        Raises:
            MalformedBody: they are damaged, or have an encoding that expands without limit.
            PayloadTooLarge: they are too many, or too large.
        """
        # As Arrow's own reader finds them.
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = chunk.dictionary_page_offset
        stop = start + chunk.total_compressed_size
        if not 4 <= start <= stop <= len(self._body):
            raise MalformedBody("the Parquet file has a column outside its bytes")
        while start < stop:
            header, length = _read_header(self._body[start:stop])
            uncompressed, compressed = header.get(2), header.get(3)
            if not isinstance(uncompressed, int) or not isinstance(compressed, int):
                raise MalformedBody("the Parquet file has a page without a size")
            if uncompressed < 0 or compressed < 0:
                raise MalformedBody("the Parquet file has a page of negative size")
            for kind, field in _ENCODINGS.items():
                if kind in header and header[kind].get(field) == _DELTA_BYTE_ARRAY:
                    raise MalformedBody(
                        "Parquet with the encoding DELTA_BYTE_ARRAY is not supported; write it with another one"
                    )
            self._n_pages += 1
            self._n_bytes += uncompressed
            if self._n_pages > MAX_PAGES:
                raise PayloadTooLarge(f"the Parquet file has more than {MAX_PAGES} pages")
            check_weight(self._n_bytes, "the Parquet file's pages")
            start += length + compressed


def _read_header(data: memoryview) -> tuple[dict[int, Any], int]:
    reader = _Compact(data[:MAX_HEADER_BYTES])
    try:
        return reader.struct(0), reader.place
    except IndexError:
        raise MalformedBody("the Parquet file has a page whose header is cut off, or too long") from None


class _Compact:
    """Values in Thrift's compact protocol. Source: Thrift's doc/specs/thrift-compact-protocol.md."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.place = 0

    def struct(self, depth: int) -> dict[int, Any]:
        """The fields of a struct by their numbers."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._skip(8)
            case 8:
                return self._skip(self._varint())
            case 12 if depth < MAX_DEPTH:
                return self.struct(depth + 1)
            case _:
                # A page's header has no lists or maps.
                raise MalformedBody("the Parquet file has a page with an unknown header")

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _skip(self, n_bytes: int) -> None:
        self.place += n_bytes
        if self.place > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise MalformedBody("the Parquet file has a page with an invalid number")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
