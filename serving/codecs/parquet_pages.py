"""Checks what a Parquet file says of its columns and pages, before anything is decompressed.

pyarrow does not expose the pages, and aborts the process on some damaged metadata that it does expose, so this reads
them itself. Source: parquet-format's parquet.thrift; a field's number there is its number here.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from serving.codecs.limits import check_weight
from serving.codecs.media_types import Body
from serving.codecs.thrift import Compact, Invalid
from serving.errors import MalformedBody, PayloadTooLarge

FOOTER_BYTES = 2_000_000
"""Maximum of a file's metadata: about 100 bytes for each column and row group."""

MAX_PAGES = 20_000
"""Maximum of pages in a file: for 100,000 rows and 1,000 columns, twenty for each."""

MAX_HEADER_BYTES = 100_000
"""Maximum of a page's header, which holds the column's smallest and largest value."""

MAX_GROUPS = 1_000

_FIXED, _REPEATED = 7, 2
"""Source: parquet.thrift, `Type` and `FieldRepetitionType`."""

_DELTA_BYTE_ARRAY = 7
"""Texts as the end of the text before: each may be as long as all before it. Source: parquet.thrift, `Encoding`."""

_ENCODINGS = {5: 2, 7: 2, 8: 4}
"""Fields of `PageHeader` with a header of a kind of page, and the field of its encoding."""


class Leaf(NamedTuple):
    """A column that has values itself."""

    name: str
    """Of the outermost column that it is in."""
    is_flat: bool
    """Whether it is that column, with one value for each row."""
    fixed_bytes: int
    """Of each value; 0 if they need not have one size."""


class Footer(NamedTuple):
    """The metadata of a file."""

    n_rows: int
    leaves: list[Leaf]
    groups: list[list[dict[int, Any]]]
    """The `ColumnMetaData` of the leaves, by row group."""


def read_footer(body: Body) -> Footer:
    """Reads the metadata at the end of a file.

    Raises:
        MalformedBody: it is none.
        PayloadTooLarge: it is too long.
    """
    length = int.from_bytes(body[-8:-4], "little")
    if len(body) < 12 or body[-4:] != b"PAR1" or length > len(body) - 12:
        raise MalformedBody("the body is not a Parquet file")
    if length > FOOTER_BYTES:
        raise PayloadTooLarge(f"the metadata of the Parquet file has more than {FOOTER_BYTES} bytes")
    try:
        fields = Compact(memoryview(body)[len(body) - 8 - length : -8]).struct()
        groups = [[chunk[3] for chunk in group[1]] for group in fields[4]]
        n_rows = [group[3] for group in fields[4]]
        leaves = list(_find_leaves(iter(fields[2])))
    except (Invalid, LookupError, TypeError, AttributeError, UnicodeDecodeError, StopIteration, RuntimeError):
        raise MalformedBody("the metadata of the Parquet file is damaged") from None
    if len(groups) > MAX_GROUPS:
        raise PayloadTooLarge(f"the Parquet file has more than {MAX_GROUPS} row groups")
    if any(not isinstance(n, int) or n < 0 for n in n_rows) or sum(n_rows) != fields.get(3):
        raise MalformedBody("the metadata of the Parquet file disagrees with itself on the number of rows")
    if not all(isinstance(chunk, dict) for group in groups for chunk in group):
        raise MalformedBody("the metadata of the Parquet file is damaged")
    if any(len(group) != len(leaves) for group in groups):
        raise MalformedBody("the metadata of the Parquet file disagrees with itself on the columns")
    return Footer(sum(n_rows), leaves, groups)


def _find_leaves(elements: Iterator[dict[int, Any]]) -> Iterator[Leaf]:
    """The leaves of a flattened tree of `SchemaElement`."""
    for _ in range(next(elements)[5]):
        top = next(elements)
        name = top[4].decode()
        if not top.get(5):
            yield Leaf(name, top.get(3) != _REPEATED, top[2] if top.get(1) == _FIXED else 0)
            continue
        left = top[5]
        while left:
            inner = next(elements)
            left += inner.get(5, 0) - 1
            if not inner.get(5):
                yield Leaf(name, is_flat=False, fixed_bytes=0)


def check_pages(body: Body, footer: Footer, names: set[str]) -> None:
    """Adds up what the pages of the columns say of their size.

    Raises:
        MalformedBody: they are damaged, or have an encoding that expands without limit.
        PayloadTooLarge: they are too many, or too large.
    """
    n_pages, n_bytes = 0, 0
    for group in footer.groups:
        for leaf, chunk in zip(footer.leaves, group, strict=True):
            if leaf.name not in names:
                continue
            for header in _headers(memoryview(body), chunk):
                n_pages += 1
                n_bytes += header[2]
                if n_pages > MAX_PAGES:
                    raise PayloadTooLarge(f"the Parquet file has more than {MAX_PAGES} pages")
                check_weight(n_bytes, "the Parquet file's pages")
    fixed = math.fsum(leaf.fixed_bytes for leaf in footer.leaves if leaf.name in names)
    check_weight(int(fixed) * footer.n_rows, "the rows")


def _headers(body: memoryview, chunk: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """The headers of a column chunk's pages, found as Arrow's reader finds them."""
    start, size, dictionary = chunk.get(9), chunk.get(7), chunk.get(11, 0)
    if not isinstance(start, int) or not isinstance(size, int) or not isinstance(dictionary, int):
        raise MalformedBody("the Parquet file does not say where its columns are")
    start = dictionary if 0 < dictionary < start else start
    stop = start + size
    if not 4 <= start <= stop <= len(body):
        raise MalformedBody("the Parquet file has a column outside its bytes")
    while start < stop:
        reader = Compact(body[start : min(stop, start + MAX_HEADER_BYTES)])
        try:
            header = reader.struct()
        except Invalid:
            raise MalformedBody("the Parquet file has a page with an invalid header") from None
        # Larger numbers wrap around in Arrow's reader.
        if not all(isinstance(header.get(field), int) and 0 <= header[field] < 2**31 for field in (2, 3)):
            raise MalformedBody("the Parquet file has a page without a size")
        for kind, field in _ENCODINGS.items():
            inner = header.get(kind)
            if isinstance(inner, dict) and inner.get(field) == _DELTA_BYTE_ARRAY:
                raise MalformedBody(
                    "Parquet with the encoding DELTA_BYTE_ARRAY is not supported; write it with another one"
                )
        yield header
        start += reader.place + header[3]
