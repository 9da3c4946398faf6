"""Limits the memory of one decoded request, whose encoded form may be far smaller."""

from serving.errors import PayloadTooLarge
from serving.model.schema import DTYPES, Kind, Schema

request_bytes = 1_000_000_000
"""Memory limit of the rows of one request; a worker sets it at startup to fit its memory."""

ROW_PART = 0.5
"""Fraction of it that one row may take while it is parsed."""

SMALL_BYTES = 64_000
"""Not counted up to this size: a full queue of such requests takes less than a model."""

OBJECT_BYTES = 72
"""Size of a number or a short text as an object, with its reference. Source: `sys.getsizeof`, CPython 3.11."""

NUMBER_BYTES = 8
"""Maximum size of a number in an array."""


def limit_requests(n_bytes: int) -> None:
    """Sets the memory limit of one request in this process."""
    global request_bytes  # noqa: PLW0603  # a limit per process, like memory itself
    request_bytes = n_bytes


def check_weight(n_bytes: int, what: str, part: float = 1) -> None:
    """Rejects data that would take too much memory.

    Args:
        n_bytes: its size.
        what: for the message.
        part: fraction of a request's limit.

    Raises:
        PayloadTooLarge: above that.
    """
    limit = request_bytes * part
    if n_bytes > limit:
        raise PayloadTooLarge(
            f"{what} would take more than {limit / 1e6:.0f} MB of memory (SERVING_REQUEST_MEMORY_MB); send less "
            "in one request"
        )


def row_bytes(schema: Schema) -> tuple[int, int]:
    """Returns the size of a row's cells in arrays, and as Python objects; without text, lists and tensors."""
    types = [column.type for column in schema.columns]
    n_tensors = sum(type_.kind is Kind.TENSOR for type_ in types)
    n_objects = sum(type_.kind not in DTYPES for type_ in types) - n_tensors
    return (len(types) - n_tensors - n_objects) * NUMBER_BYTES, n_objects * OBJECT_BYTES


NESTED = frozenset({Kind.ARRAY, Kind.OBJECT, Kind.MAP, Kind.ANY})
"""Kinds whose cells stay Python objects of any size."""


def holds_nested(schema: Schema) -> bool:
    """Whether a cell may contain many objects."""
    types = [column.type for column in schema.columns]
    return any(type_.kind in NESTED or type_.dtype == "str" for type_ in types)


def check_rows(n_rows: int, schema: Schema) -> None:
    """Rejects rows whose cells would take too much memory, before they are created.

    Raises:
        PayloadTooLarge: above a request's limit.
    """
    check_weight(n_rows * sum(row_bytes(schema)), "the rows")
