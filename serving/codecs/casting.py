"""Lossless casts of JSON values and arrays to the signature's types.

A cast that would change a value (5.5 → long, 2^53 + 1 → double, text → number) is a `Mismatch`, which names
types and never the value.
"""

import base64
import binascii
import datetime as dt
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import MAX_DETAILS, Detail
from serving.model.schema import DTYPES, Column, Kind, Type

INTEGER_LIMITS = {Kind.INTEGER: (-(2**31), 2**31 - 1), Kind.LONG: (-(2**63), 2**63 - 1)}

MAX_DIGITS = 400
"""Of an integer, including its sign: longer ones exceed any double, and Python's conversion is quadratic."""

_LOWEST, _HIGHEST = -(10 ** (MAX_DIGITS - 1)), 10**MAX_DIGITS
"""The smallest integers, by magnitude, that are longer."""

_DATETIME_UNITS = frozenset({"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"})

_EXPECTED = {
    Kind.BOOLEAN: "boolean",
    Kind.INTEGER: "integer (32 bits)",
    Kind.LONG: "long (integer of 64 bits)",
    Kind.FLOAT: "float (finite number of 32 bits)",
    Kind.DOUBLE: "double (finite number of 64 bits)",
    Kind.STRING: "string",
    Kind.BINARY: "binary (base64 text)",
    Kind.DATETIME: "datetime (ISO 8601 text, years 1678 to 2261)",
}


_BELOW_MICROSECONDS = re.compile(r"[.,]\d{6}(\d+)")


class NotFinite:
    """Stands for the tokens NaN, Infinity and -Infinity, and for numbers that are too large."""

    def __init__(self, token: str) -> None:
        self.name = token


class Mismatch(Exception):
    """A value that its column cannot hold."""

    def __init__(self, expected: str, got: str, path: str = "") -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got
        self.path = path

    def below(self, key: str) -> "Mismatch":
        """The same, with a path from the value that contains this one under `key`."""
        return Mismatch(self.expected, self.got, key + self.path)


def expected_name(column: Column) -> str:
    """Returns the type that a column expects, in words."""
    name = _EXPECTED.get(column.type.kind, str(column.type))
    return f"{name} or null" if column.may_be_missing and column.type.kind is not Kind.ANY else name


def json_type_name(value: object) -> str:
    """Returns the JSON name of a decoded value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer" if -(2**63) <= value < 2**63 else "integer beyond 64 bits"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case dict():
            return "object"
        case NotFinite():
            return value.name
        case _:
            return type(value).__name__


def cast_cell(value: Any, column: Column) -> Any:
    """Returns the value as the column's type; None, or NaN in a float column, if it is missing.

    Raises:
        Mismatch: the column cannot hold the value.
    """
    if value is None and column.may_be_missing:
        return None
    try:
        return cast_value(value, column.type)
    except Mismatch as mismatch:
        if mismatch.path:
            raise
        raise Mismatch(expected_name(column), mismatch.got) from None


def cast_value(value: Any, type_: Type) -> Any:  # noqa: PLR0912  # one branch per type reads as the table it is
    """Returns a JSON value as a Python value of the type.

    Raises:
        Mismatch: the cast would not be lossless.
    """
    kind = type_.kind
    match kind:
        case Kind.BOOLEAN if isinstance(value, bool):
            return value
        case Kind.INTEGER | Kind.LONG if isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = INTEGER_LIMITS[kind]
            if low <= value <= high and int(value) == value:
                return int(value)
        case Kind.FLOAT | Kind.DOUBLE if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = _exact_float(value, np.dtype(DTYPES[kind]))
            if number is not None:
                return number
        case Kind.STRING if isinstance(value, str):
            return _unicode(value)
        case Kind.BINARY if isinstance(value, bytes):
            return value
        case Kind.BINARY if isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise Mismatch(_EXPECTED[kind], "string that is not base64") from None
        case Kind.DATETIME if isinstance(value, (str, dt.datetime)):
            return _nanoseconds(value)
        case Kind.ARRAY if isinstance(value, (list, tuple)):
            assert type_.items is not None
            return [_below(f"[{i}]", item, type_.items) for i, item in enumerate(value)]
        case Kind.MAP if isinstance(value, dict):
            assert type_.items is not None
            return {
                _unicode(key): _below(f"[{i}]", item, type_.items)
                for i, (key, item) in enumerate(value.items())
            }
        case Kind.OBJECT if isinstance(value, dict):
            return _cast_object(value, type_)
        case Kind.ANY:
            return _anything(value)
        case Kind.TENSOR:
            return _cast_tensor(value, type_)
        case _:
            pass
    raise Mismatch(_EXPECTED.get(kind, str(type_)), json_type_name(value))


def _below(key: str, value: Any, type_: Type) -> Any:
    try:
        return cast_value(value, type_)
    except Mismatch as mismatch:
        raise mismatch.below(key) from None


def _unicode(value: str) -> str:
    """The text, if it is valid Unicode: JSON allows half a surrogate pair, which cannot be encoded again."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Mismatch(_EXPECTED[Kind.STRING], "string with half a surrogate pair") from None
    return value


def _anything(value: Any) -> Any:
    """The value, if nothing in it is `NotFinite`; not recursive, since JSON may be deeply nested."""
    left = [value]
    while left:
        match left.pop():
            case NotFinite(name=name):
                raise Mismatch(Kind.ANY.value, name)
            case int(number) if not _LOWEST < number < _HIGHEST:
                raise Mismatch(Kind.ANY.value, json_type_name(number))
            case str(text):
                _unicode(text)
            case list(items):
                left.extend(items)
            case dict(members):
                left.extend(members)
                left.extend(members.values())
            case _:
                pass
    return value


def _exact_float(value: float, dtype: np.dtype[Any]) -> float | None:
    """The nearest float of the type; None if an integer would change, or a number would become infinite."""
    try:
        number = float(value)
        if dtype.itemsize < 8:
            with np.errstate(over="ignore"):
                number = float(dtype.type(value))
    except OverflowError:
        return None
    if math.isnan(value):
        return number
    if not math.isfinite(number) or (isinstance(value, int) and int(number) != value):
        return None
    return number


def _nanoseconds(value: str | dt.datetime) -> np.datetime64:
    """ISO 8601 → UTC without a zone, in nanoseconds (what pandas and MLflow use)."""
    try:
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
        # Python's datetime truncates to microseconds.
        finer = _BELOW_MICROSECONDS.search(value) if isinstance(value, str) else None
        digits = finer[1].rstrip("0") if finer else ""
        if moment.tzinfo is not None:
            moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise Mismatch(_EXPECTED[Kind.DATETIME], "string that is not an ISO 8601 datetime") from None
    if not 1678 <= moment.year <= 2261:
        raise Mismatch(_EXPECTED[Kind.DATETIME], "date outside these years")
    if len(digits) > 3:
        raise Mismatch(_EXPECTED[Kind.DATETIME], "time finer than nanoseconds")
    return np.datetime64(moment, "ns") + np.timedelta64(int(digits.ljust(3, "0")), "ns")


def _cast_object(value: dict[str, Any], type_: Type) -> dict[str, Any]:
    known = {column.name for column in type_.properties}
    unknown = next((key for key in value if key not in known), None)
    if unknown is not None:
        raise Mismatch("no such property", json_type_name(value[unknown]), f".{short(unknown)}")
    out = {}
    for column in type_.properties:
        if column.name not in value:
            if column.required:
                raise Mismatch(expected_name(column), "nothing", f".{column.name}")
            continue
        try:
            out[column.name] = cast_cell(value[column.name], column)
        except Mismatch as mismatch:
            raise mismatch.below(f".{column.name}") from None
    return out


def _cast_tensor(value: Any, type_: Type) -> npt.NDArray[Any]:
    """Nested lists → an array of the row's shape."""
    flat: list[Any] = []
    shape = _flatten(value, type_, 0, flat, "")
    if type_.dtype == "str":
        array = np.array(flat, dtype=object)
    else:
        array = np.array(flat, dtype=np.dtype(type_.dtype))
    return array.reshape(shape)


def _flatten(value: Any, type_: Type, depth: int, flat: list[Any], path: str) -> tuple[int, ...]:
    if depth == len(type_.shape):
        try:
            flat.append(cast_scalar(value, np.dtype(type_.dtype) if type_.dtype != "str" else None))
        except Mismatch as mismatch:
            raise mismatch.below(path) from None
        return ()
    length = type_.shape[depth]
    if not isinstance(value, (list, tuple)):
        raise Mismatch(str(type_), json_type_name(value), path)
    if length not in (-1, len(value)):
        raise Mismatch(str(type_), f"array of length {len(value)}", path)
    shapes = {_flatten(item, type_, depth + 1, flat, f"{path}[{i}]") for i, item in enumerate(value)}
    if len(shapes) > 1:
        raise Mismatch(str(type_), "arrays of different lengths", path)
    # An empty array gets the signature's lengths, or 0 for open ones.
    inner = next(iter(shapes)) if shapes else tuple(max(n, 0) for n in type_.shape[depth + 1 :])
    return (len(value), *inner)


def cast_scalar(value: Any, dtype: np.dtype[Any] | None) -> Any:
    """Returns a JSON value as an element of a tensor; `dtype` None is text.

    Raises:
        Mismatch: the cast would not be lossless.
    """
    if dtype is None:
        if isinstance(value, str):
            return _unicode(value)
    elif dtype.kind == "b":
        if isinstance(value, bool):
            return value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if dtype.kind == "f":
            number = _exact_float(value, dtype)
            if number is not None:
                return number
        elif dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if limits.min <= value <= limits.max and int(value) == value:
                return int(value)
    elif value is None and dtype.kind == "f":
        return math.nan
    raise Mismatch("string" if dtype is None else dtype.name, json_type_name(value))


def short(name: str) -> str:
    """Returns a name from a request, encodable and short enough for logs."""
    name = name.encode(errors="replace").decode()
    return name if len(name) <= 80 else name[:77] + "…"


def cells_to_column(cells: Sequence[Any], column: Column) -> npt.NDArray[Any]:
    """Returns cast cells (`cast_cell`) as the array that `Inputs` describes, shape `(n_rows,)` or more."""
    kind = column.type.kind
    if kind is Kind.TENSOR:
        return np.stack(cells)
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        return _with_none(np.array(cells, dtype=DTYPES[kind]), column)
    if kind is Kind.DATETIME:
        return np.array([np.datetime64("NaT") if c is None else c for c in cells], dtype=DTYPES[kind])
    if kind in DTYPES and not any(cell is None for cell in cells):
        return np.array(cells, dtype=DTYPES[kind])
    missing = column.missing
    if kind in INTEGER_LIMITS and missing is not None and all(c is None or abs(c) <= 2**53 for c in cells):
        return np.array(cells, dtype=np.float64)
    out = np.empty(len(cells), dtype=object)
    out[:] = cells
    return out if missing is None else replace_none(out, missing)


def _with_none(values: npt.NDArray[Any], column: Column) -> npt.NDArray[Any]:
    """Floats with None in place of NaN, if the model expects None."""
    if column.missing is not None:
        return values
    out = values.astype(object)
    out[np.isnan(values)] = None
    return out


def replace_none(values: npt.NDArray[Any], missing: float) -> npt.NDArray[Any]:
    """Returns an object array of shape `(n_rows,)` with `missing` in place of None."""
    is_none = [cell is None for cell in values.tolist()]
    if any(is_none):
        values = values.copy()
        values[is_none] = missing
    return values


def cast_array(values: npt.NDArray[Any], column: Column) -> npt.NDArray[Any]:
    """Returns an array as the column's type; NaN and NaT are missing values.

    Args:
        values: shape `(n_rows,)`, any dtype but object.
        column: of the signature; not a tensor.

    Raises:
        ArrayMismatch: some rows do not fit; it lists them.
    """
    kind = column.type.kind
    source = values.dtype.kind
    if values.ndim != 1:
        raise ArrayMismatch([Detail(expected_name(column), "array", None, column.name)])
    if kind in (Kind.FLOAT, Kind.DOUBLE) and source in "iuf":
        return _with_none(_array_to_floats(values, column, np.dtype(DTYPES[kind])), column)
    if kind in INTEGER_LIMITS and source in "iuf":
        return _array_to_integers(values, column)
    if kind is Kind.BOOLEAN and source == "b":
        return values
    if kind is Kind.STRING and source == "U":
        _refuse(~is_unicode(values), column, "text that is not Unicode")
        return values.astype(object)
    # Finer units span only some hours around 1970, and NumPy does not convert them to years.
    if kind is Kind.DATETIME and source == "M" and np.datetime_data(values.dtype)[0] in _DATETIME_UNITS:
        years = values.astype("datetime64[Y]").astype(np.int64) + 1970
        _refuse(~np.isnat(values) & ((years < 1678) | (years > 2261)), column, "date outside these years")
        return values.astype(DTYPES[kind])
    raise ArrayMismatch([Detail(expected_name(column), array_type_name(values), None, column.name)])


class ArrayMismatch(Exception):
    """An array that its column cannot hold; `details` has up to `MAX_DETAILS` of its rows."""

    def __init__(self, details: list[Detail]) -> None:
        super().__init__(details)
        self.details = details


def is_unicode(values: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Returns which elements of fixed-width text have only valid code points."""
    points = np.ascontiguousarray(values).reshape(-1).view(np.uint32).reshape(values.size, -1)
    bad = (points > 0x10FFFF) | ((points >= 0xD800) & (points <= 0xDFFF))
    return np.asarray(~bad.any(axis=1)).reshape(values.shape)


def array_type_name(values: npt.NDArray[Any]) -> str:
    """Returns the name of an array's element type, for an error."""
    return "text" if values.dtype.kind in "US" else values.dtype.name


def _refuse(bad: npt.NDArray[np.bool_], column: Column, got: str) -> None:
    if bad.any():
        rows = np.flatnonzero(bad)[:MAX_DETAILS]
        raise ArrayMismatch([Detail(expected_name(column), got, int(row), column.name) for row in rows])


def _array_to_floats(
    values: npt.NDArray[Any], column: Column, dtype: np.dtype[Any]
) -> npt.NDArray[np.floating[Any]]:
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            out = values.astype(dtype, copy=False)
        _refuse(np.isinf(out), column, "infinite or too large number")
        return out
    out = values.astype(dtype)
    # 2^53 (2^24 for float32) is the first integer whose successor a float cannot hold.
    exact_below = 2 ** (np.finfo(dtype).nmant + 1)
    large = (
        (values > exact_below) | (values < -exact_below) if values.dtype.kind == "i" else values > exact_below
    )
    if large.any():
        _refuse(is_changed(values, out), column, "integer that it cannot hold exactly")
    return out


def is_changed(integers: npt.NDArray[Any], floats: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Returns which integers change as floats."""
    # A value rounded up to the power of two above the integer type cannot be cast back.
    above = np.float64(np.iinfo(integers.dtype).max + 1)
    changed = (floats >= above) | ~np.isfinite(floats)
    changed[~changed] = floats[~changed].astype(integers.dtype) != integers[~changed]
    return np.asarray(changed)


def _array_to_integers(values: npt.NDArray[Any], column: Column) -> npt.NDArray[Any]:
    low, high = INTEGER_LIMITS[column.type.kind]
    dtype = np.dtype(DTYPES[column.type.kind])
    if values.dtype.kind in "iu":
        if np.iinfo(values.dtype).max > high or np.iinfo(values.dtype).min < low:
            _refuse((values > high) | (values < low), column, "integer out of range")
        return values.astype(dtype, copy=False)
    missing = np.isnan(values)
    # float(2^63 - 1) is 2^63 itself, which does not fit: hence "<".
    if values.dtype.itemsize == 2:
        values = values.astype(np.float32)  # float16 has no 2^31 to compare with
    with np.errstate(invalid="ignore"):
        fits = (values >= low) & (values < float(high + 1)) & (np.floor(values) == values)
    _refuse(~fits & ~missing, column, "number that is not an integer in range")
    if not missing.any():
        return values.astype(dtype)
    if column.required:
        _refuse(missing, column, "missing value")
    if column.missing is not None:
        return values.astype(np.float64)
    out = np.full(len(values), None, dtype=object)
    out[~missing] = values[~missing].astype(dtype)
    return out
