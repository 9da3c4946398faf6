"""What one request may take in memory once it is read, which most forms say in far fewer bytes."""

from serving.errors import PayloadTooLarge
from serving.model.schema import DTYPES, Kind, Schema

request_bytes = 1_000_000_000
"""What the rows of one request may take until they are answered; a worker makes it fit its memory when it starts."""

ROW_PART = 0.5
"""The part of it that one row may take while it is read."""

SMALL_BYTES = 64_000
"""What is not counted: as many requests as may wait take less than a model does."""

OBJECT_BYTES = 72
"""What a number or a short text takes as an object, with the reference to it. Source: `sys.getsizeof`, CPython 3.11."""

NUMBER_BYTES = 8
"""What a number takes in an array, at most."""


def limit_requests(n_bytes: int) -> None:
    """Sets what one request may take in this process."""
    global request_bytes  # noqa: PLW0603  # it belongs to the process, as its memory does
    request_bytes = n_bytes


def check_weight(n_bytes: int, what: str, part: float = 1) -> None:
    """Refuses what would take too much memory.

    Args:
        n_bytes: that it would take.
        what: for the message.
        part: of what a request may take.

    Raises:
        PayloadTooLarge: more than that.
    """
    limit = request_bytes * part
    if n_bytes > limit:
        raise PayloadTooLarge(
            f"{what} would take more than {limit / 1e6:.0f} MB of memory (SERVING_REQUEST_MEMORY_MB); send less "
            "in one request"
        )


def row_bytes(schema: Schema) -> tuple[int, int]:
    """Returns what the cells of a row take in arrays, and as Python objects; without text, lists and tensors."""
    types = [column.type for column in schema.columns]
    n_tensors = sum(type_.kind is Kind.TENSOR for type_ in types)
    n_objects = sum(type_.kind not in DTYPES for type_ in types) - n_tensors
    return (len(types) - n_tensors - n_objects) * NUMBER_BYTES, n_objects * OBJECT_BYTES


NESTED = frozenset({Kind.ARRAY, Kind.OBJECT, Kind.MAP, Kind.ANY})
"""Kinds whose cells stay Python objects of any size."""


def holds_nested(schema: Schema) -> bool:
    """Whether a cell may hold many objects."""
    types = [column.type for column in schema.columns]
    return any(type_.kind in NESTED or type_.dtype == "str" for type_ in types)


def check_rows(n_rows: int, schema: Schema) -> None:
    """Refuses rows whose cells take too much memory, before they are made.

    Raises:
        PayloadTooLarge: more than a request may take.
    """
    check_weight(n_rows * sum(row_bytes(schema)), "the rows")
