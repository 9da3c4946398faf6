"""What one request may take in memory once it is Python objects, which most forms say in far fewer bytes."""

from serving.errors import PayloadTooLarge
from serving.model.schema import DTYPES, Kind, Schema

ROW_LIMIT_BYTES = 2**28
"""What one row may take while it is read."""

KEPT_LIMIT_BYTES = 2 * ROW_LIMIT_BYTES
"""What the rows may take until they are answered."""

OBJECT_BYTES = 72
"""What a number or a short text takes as an object, with the reference to it. Source: `sys.getsizeof`, CPython 3.11."""


def check_weight(n_bytes: int, limit_bytes: int, what: str) -> None:
    """Refuses what would take too much memory.

    Raises:
        PayloadTooLarge: more than the limit.
    """
    if n_bytes > limit_bytes:
        raise PayloadTooLarge(
            f"{what} would take more than {limit_bytes // 10**6} MB of memory; send less in one request"
        )


def count_object_columns(schema: Schema) -> int:
    """Returns how many columns travel as Python objects, not as an array of numbers."""
    types = [column.type for column in schema.columns]
    return sum(type_.kind not in DTYPES and type_.kind is not Kind.TENSOR for type_ in types)


def check_objects(n_rows: int, schema: Schema) -> None:
    """Refuses more cells than may become Python objects.

    Raises:
        PayloadTooLarge: more than `KEPT_LIMIT_BYTES` hold.
    """
    if n_rows * len(schema.columns) * OBJECT_BYTES > KEPT_LIMIT_BYTES:
        check_weight(n_rows * count_object_columns(schema) * OBJECT_BYTES, KEPT_LIMIT_BYTES, "the rows")
