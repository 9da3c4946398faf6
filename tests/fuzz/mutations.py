"""Bodies that are nearly what they should be."""

import random
from collections.abc import Callable

MAX_BYTES = 2_000_000
"""More than a body has that is read at once, so that pieces are tried, too."""

NUMBERS = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
]

WORDS = [
    *(b"[]", b"{}", b"[[]],", b"{},", b'"",', b"0,", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0"),
    *(
        b"9" * 400,
        b"\\",
        b'"',
        b"\\u0000",
        b"\\ud800",
        "😀".encode(),
        b"\xff",
        b"\x00",
        b" " * 64,
        b",",
        b":",
    ),
    *(b"'", b"(", b")", b"(1,),", b"'<U0'", b"'|O'", b"[('a', '<f8')]", b"-1", b"10**9", b"\x93NUMPY", b"L"),
    *(b'{"instances":', b'"params":{', b"]", b"}", b"[", b"{", b"[" * 900),
]


def _flip(body: bytearray, chance: random.Random, _: bytes) -> None:
    for _ in range(chance.randint(1, 4)):
        body[chance.randrange(len(body))] = chance.randrange(256)


def _number(body: bytearray, chance: random.Random, _: bytes) -> None:
    """Offsets, lengths and counts of binary forms."""
    size = chance.choice([1, 2, 4, 8])
    place = chance.randrange(len(body)) // size * size
    value = chance.choice(NUMBERS) % 256**size
    body[place : place + size] = value.to_bytes(size, "little")


def _word(body: bytearray, chance: random.Random, _: bytes) -> None:
    place = chance.randrange(len(body))
    body[place : place + chance.choice([0, 0, 1, 4])] = chance.choice(WORDS)


def _cut(body: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(body))
    del body[start : start + chance.choice([1, 2, 8, 64, len(body)])]


def _repeat(body: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(body))
    part = bytes(body[start : start + chance.choice([1, 2, 4, 8, 32, 200])])
    n = min(chance.choice([2, 10, 1_000, 100_000]), MAX_BYTES // max(1, len(part)))
    body[start:start] = part * n


def _splice(body: bytearray, chance: random.Random, other: bytes) -> None:
    start, place = chance.randrange(len(other)), chance.randrange(len(body))
    body[place : place + chance.choice([0, 32])] = other[start : start + chance.choice([8, 64, 1_000])]


MUTATIONS: list[Callable[[bytearray, random.Random, bytes], None]] = [
    _flip,
    _flip,
    _number,
    _word,
    _word,
    _cut,
    _repeat,
    _splice,
]


def mutate(body: bytes, other: bytes, chance: random.Random) -> bytes:
    """Returns a body that one to four things have happened to."""
    out = bytearray(body)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        if out:
            chance.choice(MUTATIONS)(out, chance, other)
    return bytes(out[: 2 * MAX_BYTES])
