"""Reads the header of a `.npy` file without Python's own parser.

NumPy parses it as Python source, and tokenizes a broken one in Python, 30 ms per kilobyte. `np.save` writes only a
subset: a dict of three keys with strings, integers, booleans, tuples and lists.
Source: NumPy's documentation of the format, numpy.lib.format.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.codecs.media_types import Body

PLAIN_BYTES = 1_000
"""Maximum size of the header of an array without fields; NumPy needs 118 for two dimensions."""

MAX_DEPTH = 16
"""Maximum nesting of tuples and lists: each level of records takes two."""

_SIZES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
"""Bytes of the header's length, by version."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|(?P<number>\d{1,20})L?|(?P<word>True|False)|(?P<mark>[][(){},:]))"""
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\\'\"nrt])")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_DTYPE = re.compile(r"[<>|=]?[?biufcmMSUVO]\d{0,10}(?:\[\d{0,5}[a-zA-Z]{1,2}\])?")


class Header(NamedTuple):
    """A `.npy` file's description of its data."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int
    """Where the data begins."""


def read_header(body: Body, names: Sequence[str]) -> Header:
    """Reads the header of a `.npy` file of version 1, 2 or 3.

    Args:
        body: the file.
        names: of the fields that it may describe; they limit its length.

    Raises:
        ValueError, TypeError: `np.save` would not write it.
    """
    size = _SIZES.get(bytes(body[6:8]))
    if bytes(body[:6]) != b"\x93NUMPY" or size is None:
        raise ValueError("not a .npy file of version 1, 2 or 3")
    start = 8 + size
    length = int.from_bytes(body[8:start], "little")
    if len(body) < start + length or (
        length > PLAIN_BYTES and length > PLAIN_BYTES + sum(map(_field_bytes, names))
    ):
        raise ValueError("a header that is cut off, or too long")
    text = bytes(body[start : start + length]).decode("utf-8" if body[6] == 3 else "latin-1")
    header = _Literal(text).read()
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ValueError("other keys")
    shape, fortran_order = header["shape"], header["fortran_order"]
    if not isinstance(fortran_order, bool) or not _is_shape(shape):
        raise ValueError("no shape and order")
    return Header(shape, fortran_order, _dtype(header["descr"]), start + length)


def _field_bytes(name: str) -> int:
    """Maximum size of a field: its name, each character escaped, its dtype and its shape."""
    return 10 * len(name) + 200


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(length) is int for length in value)


class _Literal:
    """A value as Python writes it, one token after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._depth = 0
        self._next()

    def read(self) -> Any:
        value = self._value()
        if self._token is not None:
            raise ValueError("more than one value")
        return value

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._place)
        if match is None and self._text[self._place :].strip():
            raise ValueError("an invalid token")
        self._token = match
        self._place = match.end() if match else len(self._text)

    def _value(self) -> Any:
        token = self._token
        if token is None:
            raise ValueError("an end too early")
        self._next()
        match token.lastgroup, token[token.lastgroup or 0]:
            case "text", text:
                return _unescape(text[1:-1])
            case "number", digits:
                return int(digits)
            case "word", word:
                return word == "True"
            case _, "(":
                items, has_comma = self._items(")")
                return items[0] if len(items) == 1 and not has_comma else tuple(items)
            case _, "[":
                return self._items("]")[0]
            case _, "{":
                pairs = self._items("}")[0]
                if len(dict(pairs)) != len(pairs):
                    raise ValueError("a key twice")
                return dict(pairs)
        raise ValueError("no value")

    def _items(self, end: str) -> tuple[list[Any], bool]:
        """What stands between brackets, and whether there was a comma."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("too deep")
        items: list[Any] = []
        has_comma = True
        while not self._take(end):
            if items and not has_comma:
                raise ValueError("no comma")
            item = self._value()
            if end == "}":
                if not isinstance(item, str) or not self._take(":"):
                    raise ValueError("no key")
                item = item, self._value()
            items.append(item)
            has_comma = self._take(",")
        self._depth -= 1
        return items, has_comma

    def _take(self, mark: str) -> bool:
        if self._token is None:
            raise ValueError("an end too early")
        if self._token["mark"] != mark:
            return False
        self._next()
        return True


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text

    def letter(match: re.Match[str]) -> str:
        code = match[1]
        return _LETTERS.get(code) or chr(int(code[1:], 16))

    out = _ESCAPE.sub(letter, text)
    if "\\" in _ESCAPE.sub("", text):
        raise ValueError("an invalid escape")
    return out


def _dtype(descr: Any) -> np.dtype[Any]:
    """The dtype that `numpy.lib.format.dtype_to_descr` describes; fields without a name are padding."""
    if isinstance(descr, str):
        if not _DTYPE.fullmatch(descr):
            raise ValueError("an invalid dtype")
        return np.dtype(descr)
    if isinstance(descr, tuple):
        inner, shape = descr
        return np.dtype((_dtype(inner), shape))
    names, formats, offsets, titles, offset = [], [], [], [], 0
    for field in descr:
        name, dtype = field[0], _dtype(field[1])
        if len(field) == 3:
            dtype = np.dtype((dtype, field[2]))
        title, name = name if isinstance(name, tuple) else (None, name)
        if name or dtype.type is not np.void or dtype.names is not None:
            names.append(name)
            formats.append(dtype)
            offsets.append(offset)
            titles.append(title)
        offset += dtype.itemsize
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "titles": titles, "itemsize": offset}
    )
