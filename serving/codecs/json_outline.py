"""Finds the rows of large JSON bodies, and estimates their memory, before anything is parsed.

A parser holds the GIL and creates up to 40 bytes of objects per byte of input. So the body is scanned in pieces with
NumPy, which releases the GIL: strings are told apart from the rest, and brackets are counted. The text between two commas
of the outermost array is whole rows, and can be parsed alone.
"""

import bisect
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.codecs.media_types import Body
from serving.errors import MalformedBody

LARGE_BYTES = 1_000_000
"""A smaller body is parsed at once: in the worst case this takes 40 MB and a tenth of a second."""

PIECE_BYTES = 2**18
"""Bytes scanned, and parsed, at a time: about a millisecond of a parser's work."""

LONG_BYTES = 2**16
"""Arrays and objects from this length on are cut out before the rest is parsed."""

WEIGHTS = {b"[": 100, b"{": 240, b":": 100, b",": 40}
"""Size in bytes of the value or key that such a byte stands for. Source: `sys.getsizeof` of lists and
dicts of one element, of a short key and its entry, and of a number and its reference; CPython 3.11."""


class Span(NamedTuple):
    """A long array or object inside a body."""

    start: int
    """Of its opening bracket."""
    stop: int
    """Of its closing bracket."""
    cuts: list[int]
    """Of some of the commas between its elements, about `PIECE_BYTES` apart."""

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """First and last byte (not included) of the text between the cuts."""
        ends = [self.start, *self.cuts, self.stop]
        return [(before + 1, after) for before, after in itertools.pairwise(ends)]


class _Piece(NamedTuple):
    offset: int
    text: bytes
    quotes: npt.NDArray[np.intp]
    """Positions where strings begin and end."""
    is_inside: int
    """1 if it begins inside a string."""

    def outside(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Those of the places that are not inside a string."""
        if not len(self.quotes):
            return places[: 0 if self.is_inside else None]
        n_quotes = self.quotes.searchsorted(places) + self.is_inside
        return np.asarray(places[n_quotes & 1 == 0])


def _read_pieces(body: Body) -> Iterator[_Piece]:
    is_inside, is_escaped = 0, False
    for offset in range(0, len(body), PIECE_BYTES):
        text = bytes(body[offset : offset + PIECE_BYTES])
        if is_escaped:
            text = b" " + text[1:]
        is_escaped = (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
        quotes = _find(text, b'"')
        if b"\\" in text:
            quotes = quotes[~_are_escaped(text, quotes)]
        yield _Piece(offset, text, quotes, is_inside)
        is_inside = (is_inside + len(quotes)) & 1
    if is_inside:
        raise MalformedBody("the body is not JSON: it ends inside a string")


def _find(text: bytes, byte: bytes) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.frombuffer(text, np.uint8) == byte[0])


def _are_escaped(text: bytes, quotes: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Which of the quotes follow an odd number of backslashes."""
    slashes = _find(text, b"\\")
    positions = np.arange(len(slashes))
    is_first = np.diff(slashes, prepend=-2) != 1
    n_in_row = positions - np.maximum.accumulate(np.where(is_first, positions, 0)) + 1
    before = np.minimum(slashes.searchsorted(quotes - 1), len(slashes) - 1)
    return np.asarray((slashes[before] == quotes - 1) & (n_in_row[before] % 2 == 1))


def find_long(body: Body, level: int) -> list[Span]:
    """Returns the arrays and objects at a depth that have `LONG_BYTES` or more.

    Args:
        body: possibly JSON.
        level: 1 for the outermost array or object, 2 for those in it.

    Raises:
        MalformedBody: a string or a bracket is never closed.
    """
    depth, opened = 0, -1
    spans: list[tuple[int, int]] = []
    cuts: list[int] = []
    for piece in _read_pieces(body):
        codes = np.frombuffer(piece.text, np.uint8)
        # "[" and "]" with this bit are "{" and "}"; of the four, those that open have the second bit.
        curly = codes | 0x20
        brackets = piece.outside(np.flatnonzero((curly == ord("{")) | (curly == ord("}"))))
        steps = (codes[brackets] & 2).astype(np.int8) - 1
        depths = depth + np.cumsum(steps, dtype=np.int64)
        opens = brackets[(steps > 0) & (depths == level)] + piece.offset
        closes = brackets[(steps < 0) & (depths == level - 1)] + piece.offset
        if opened >= 0:
            opens = np.concatenate(([opened], opens))
        ended = opens[: len(closes)]
        is_long = closes - ended >= LONG_BYTES
        spans += zip(ended[is_long].tolist(), closes[is_long].tolist(), strict=True)
        opened = int(opens[-1]) if len(opens) > len(closes) else -1
        cut = _last_cut(piece, brackets, np.concatenate(([depth], depths)) == level)
        if cut is not None:
            cuts.append(piece.offset + cut)
        depth = int(depths[-1]) if len(depths) else depth
    if depth:
        raise MalformedBody("the body is not JSON: its brackets are not closed, or closed twice")
    return [
        Span(start, stop, cuts[bisect.bisect(cuts, start) : bisect.bisect(cuts, stop)])
        for start, stop in spans
    ]


def _last_cut(piece: _Piece, brackets: npt.NDArray[np.intp], is_level: npt.NDArray[np.bool_]) -> int | None:
    """The last comma of the piece between two elements; `is_level` before the first and after each bracket."""
    for position in np.flatnonzero(is_level)[:-4:-1].tolist():
        low = int(brackets[position - 1]) if position else 0
        high = int(brackets[position]) if position < len(brackets) else len(piece.text)
        comma = _last_comma(piece, low, high)
        if comma is not None:
            return comma
    return None


def _last_comma(piece: _Piece, low: int, high: int) -> int | None:
    # A comma inside a string is skipped with the string: before the string there is another one.
    for _ in range(2):
        comma = piece.text.rfind(b",", low, high)
        n_quotes = int(piece.quotes.searchsorted(comma))
        if comma < 0:
            return None
        if not (n_quotes + piece.is_inside) & 1:
            return comma
        high = int(piece.quotes[n_quotes - 1]) if n_quotes else low
    return None


def weigh(text: bytes) -> int:
    """Returns the maximum size in bytes of JSON's Python objects, without the text of its strings."""
    return sum(
        weight * len(piece.outside(_find(piece.text, byte)))
        for piece in _read_pieces(text)
        for byte, weight in WEIGHTS.items()
    )


def text_bytes(text: bytes) -> int:
    """Returns the maximum size of the strings in JSON: one emoji makes each character of its string four bytes."""
    # Searching for one byte is a hundred times faster than searching for two.
    has_escapes = b"\\" in text and b"\\u" in text
    width = 4 if has_escapes else 1
    if width == 1 and not text.isascii():
        # Characters that begin with such a byte in UTF-8 are beyond 16 bits. Source: RFC 3629, 3.
        width = 4 if np.frombuffer(text, np.uint8).max() >= 0xF0 else 2
    return width * len(text)
