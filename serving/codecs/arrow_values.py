"""Arrow columns → arrays, or lists of Python objects, converted as whole arrays and not value by value.

pyarrow's `to_pylist` takes more than a microsecond per value, and holds the GIL.
"""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types

from serving.codecs.casting import ArrayMismatch, cast_array, cells_to_column
from serving.codecs.limits import OBJECT_BYTES, check_weight
from serving.model.schema import Column, Kind, Type

LIST_BYTES, DICT_BYTES, ENTRY_BYTES, NUMBER_BYTES = 80, 240, 100, 40
"""Sizes of a list, a dict, a dict entry without its value, and a number with its reference. Source: `sys.getsizeof`, CPython 3.11."""

SLICE_ROWS = 4_096
"""Values of rare types converted at a time, for some milliseconds, before other threads get their turn."""

NUMBERS = frozenset({Kind.INTEGER, Kind.LONG, Kind.FLOAT, Kind.DOUBLE})

_INTEGERS = {
    pa.lib.Type_INT8,
    pa.lib.Type_INT16,
    pa.lib.Type_INT32,
    pa.lib.Type_INT64,
    pa.lib.Type_UINT8,
    pa.lib.Type_UINT16,
    pa.lib.Type_UINT32,
    pa.lib.Type_UINT64,
}
_FLOATS = {pa.lib.Type_HALF_FLOAT, pa.lib.Type_FLOAT, pa.lib.Type_DOUBLE}
_TEXTS = {pa.lib.Type_STRING, pa.lib.Type_LARGE_STRING, pa.lib.Type_STRING_VIEW}
_VIEWS = {pa.lib.Type_STRING_VIEW, pa.lib.Type_BINARY_VIEW}
_BINARIES = {
    pa.lib.Type_BINARY,
    pa.lib.Type_LARGE_BINARY,
    pa.lib.Type_FIXED_SIZE_BINARY,
    pa.lib.Type_BINARY_VIEW,
}
_MOMENTS = {pa.lib.Type_TIMESTAMP, pa.lib.Type_DATE32, pa.lib.Type_DATE64}
_LISTS = {pa.lib.Type_LIST, pa.lib.Type_LARGE_LIST, pa.lib.Type_FIXED_SIZE_LIST}
_PLAIN = _INTEGERS | _FLOATS | _MOMENTS | {pa.lib.Type_BOOL, pa.lib.Type_STRING, pa.lib.Type_LARGE_STRING}

_HELD = {
    Kind.BOOLEAN: {pa.lib.Type_BOOL},
    **dict.fromkeys(NUMBERS, _INTEGERS | _FLOATS),
    Kind.STRING: _TEXTS,
    Kind.BINARY: _TEXTS | _BINARIES,
    Kind.DATETIME: _TEXTS | _MOMENTS,
}
"""Arrow types that may hold values of a kind. Compared by id: each function of `pyarrow.types` takes a microsecond, which
adds up over columns."""


def is_number(kind: pa.DataType) -> bool:
    """Whether NumPy has it as a number or a boolean."""
    return kind.id in _INTEGERS or kind.id in _FLOATS or kind.id == pa.lib.Type_BOOL


def is_nested(kind: pa.DataType) -> bool:
    """Whether its values contain values."""
    return kind.id not in _PLAIN and bool(types.is_nested(kind))


def type_name(kind: pa.DataType) -> str:
    """Returns the name of a type for an error, without the field names in it."""
    if types.is_dictionary(kind):
        return type_name(kind.value_type)
    if kind.id in _TEXTS:
        return "string"
    if kind.id in _LISTS:
        return "array"
    if kind.id == pa.lib.Type_TIMESTAMP:
        return "timestamp"
    return "object" if types.is_nested(kind) else str(kind)


def is_hollow(kind: pa.DataType, *, is_inside: bool = False) -> bool:
    """Whether a few bytes of a type can represent any number of values, each of which would become an object."""
    if kind.id in _PLAIN:
        return False
    if types.is_dictionary(kind):
        return is_inside or is_hollow(kind.value_type, is_inside=True)
    if types.is_null(kind) or kind.id in _VIEWS:
        return is_inside  # views are counted if they are not inside another type
    if types.is_fixed_size_list(kind) and kind.list_size == 0:
        return True
    if types.is_list_view(kind) or types.is_large_list_view(kind) or types.is_union(kind):
        return True
    if types.is_nested(kind):
        inner = [kind.field(i).type for i in range(kind.num_fields)]
        return not inner or any(is_hollow(type_, is_inside=True) for type_ in inner)
    if types.is_fixed_size_binary(kind):
        return bool(kind.byte_width == 0)
    return bool(types.is_run_end_encoded(kind)) or isinstance(kind, pa.BaseExtensionType)


def may_hold(kind: pa.DataType, type_: Type) -> bool:
    """Whether some values of an Arrow type are values of a signature's type."""
    if type_.kind in _HELD and kind.id in _HELD[type_.kind]:
        return True
    if types.is_dictionary(kind):
        return may_hold(kind.value_type, type_)
    if types.is_null(kind) or type_.kind is Kind.ANY:
        return True
    match type_.kind:
        case Kind.ARRAY:
            assert type_.items is not None
            return kind.id in _LISTS and may_hold(kind.value_type, type_.items)
        case Kind.MAP | Kind.OBJECT:
            return bool(types.is_struct(kind) or (types.is_map(kind) and kind.key_type.id in _TEXTS))
        case Kind.TENSOR:
            for _ in type_.shape:
                if kind.id not in _LISTS:
                    return False
                kind = kind.value_type
            return is_number(kind) or kind.id in _TEXTS
        case _:
            return False


class Load:
    """Memory of the objects made from a stream."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def add(self, n_bytes: int) -> None:
        """Counts objects before they are created.

        Raises:
            PayloadTooLarge: the total is too much.
        """
        self.n_bytes += n_bytes
        check_weight(self.n_bytes, "the rows")


def column_to_values(values: pa.ChunkedArray, column: Column, load: Load) -> npt.NDArray[Any] | list[Any]:
    """Returns an array if NumPy can represent the column and its missing values; else a list of cells.

    Raises:
        PayloadTooLarge: the objects would take too much memory.
        ValueError: a map or a struct names a key twice.
    """
    kind = values.type
    if kind.id in _FLOATS or kind.id in _MOMENTS or (is_number(kind) and values.null_count == 0):
        return np.asarray(values.to_numpy())
    if kind.id in _TEXTS and column.type.kind is Kind.STRING:
        for chunk in values.chunks:
            load.add(OBJECT_BYTES * len(chunk) + _text_bytes(chunk))
        texts = np.asarray(values.to_numpy())
        if column.missing is not None and values.null_count:
            texts[np.asarray(values.is_null().to_numpy())] = column.missing
        return texts
    whole = _TO_WHOLE.get(column.type.kind)
    if whole is not None and kind.id in _LISTS and values.null_count == 0:
        found = whole(values, column.type, load)
        if found is not None:
            return found
    return [cell for chunk in values.chunks for cell in _to_cells(chunk, load)]


def _to_tensor(values: pa.ChunkedArray, type_: Type, load: Load) -> npt.NDArray[Any] | None:  # noqa: ARG001
    """Lists of equal length → shape `(n_rows, *lengths)`; None if lengths differ, or a value is missing."""
    parts = []
    for chunk in values.chunks:
        shape, inner = [len(chunk)], chunk
        for _ in type_.shape:
            lengths = _lengths(inner)
            if inner.null_count or (len(lengths) and (lengths != lengths[0]).any()):
                return None
            shape.append(int(lengths[0]) if len(lengths) else 0)
            inner = inner.flatten()
        if inner.null_count or not is_number(inner.type):
            return None
        if len(chunk):
            parts.append(inner.to_numpy(zero_copy_only=False).reshape(shape))
    if len({part.shape[1:] for part in parts}) != 1:
        return None
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _to_lists(values: pa.ChunkedArray, type_: Type, load: Load) -> npt.NDArray[Any] | None:
    """Lists of numbers, booleans or text, cast as a whole; None if a value is missing or does not fit."""
    cells: list[Any] = []
    for chunk in values.chunks:
        lists = _cast_flat(chunk, type_, load)
        if lists is None:
            return None
        cells += lists
    return cells_to_column(cells, Column("", type_))


def _cast_flat(array: pa.Array, type_: Type, load: Load) -> list[Any] | None:
    if array.null_count:
        return None
    if type_.kind is Kind.ARRAY:
        assert type_.items is not None
        load.add(LIST_BYTES * len(array))
        items = _cast_flat(array.flatten(), type_.items, load)
        return None if items is None else _split(items, _lengths(array))
    if type_.kind is Kind.STRING:
        return _to_cells(array, load)
    if type_.kind is Kind.BOOLEAN or type_.kind in NUMBERS:
        load.add(NUMBER_BYTES * len(array))
        try:
            cast = cast_array(array.to_numpy(zero_copy_only=False), Column("", type_))
        except ArrayMismatch:
            return None
        flat: list[Any] = cast.tolist()
        return flat
    return None


_TO_WHOLE = {Kind.TENSOR: _to_tensor, Kind.ARRAY: _to_lists}


def _lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    """Of the lists of an array, as in `flatten`'s result; 0 for a missing one."""
    if types.is_fixed_size_list(array.type):
        lengths = np.full(len(array), array.type.list_size, np.int64)
    else:
        lengths = np.diff(array.offsets.to_numpy()).astype(np.int64)
    if array.null_count:
        lengths[_missing(array)] = 0
    return lengths


def _text_bytes(array: pa.Array) -> int:
    """Of the texts of an array; views may refer to the same bytes of the body many times."""
    if array.type.id in _VIEWS:
        lengths = np.frombuffer(array.buffers()[1], dtype=np.int32)[::4]
        return int(lengths[array.offset : array.offset + len(array)].clip(0).sum(dtype=np.int64))
    return int(array.nbytes)


def _missing(array: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False))


def _split(items: list[Any], lengths: npt.NDArray[np.int64]) -> list[Any]:
    ends = [0, *np.cumsum(lengths).tolist()]
    return [items[start:stop] for start, stop in itertools.pairwise(ends)]


def _to_cells(array: pa.Array, load: Load) -> list[Any]:
    """The values of an array as Python objects; None for a missing one."""
    kind = array.type
    if types.is_null(kind):
        return [None] * len(array)
    if types.is_dictionary(kind):
        return _words_to_cells(array, load)
    if kind.id in _TEXTS or kind.id in _BINARIES:
        load.add(OBJECT_BYTES * len(array) + _text_bytes(array))
        cells: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
        return cells
    if kind.id in _LISTS:
        load.add(LIST_BYTES * len(array))
        cells = _split(_to_cells(array.flatten(), load), _lengths(array))
    elif types.is_map(kind):
        cells = _maps_to_cells(array, load)
    elif types.is_struct(kind):
        names = [kind.field(position).name for position in range(kind.num_fields)]
        if len(set(names)) != len(names):
            raise ValueError("a struct with two fields of one name")
        load.add((DICT_BYTES + ENTRY_BYTES * len(names)) * len(array))
        fields = [_to_cells(field, load) for field in array.flatten()]
        cells = [dict(zip(names, row, strict=True)) for row in zip(*fields, strict=True)]
    elif is_number(kind):
        load.add(NUMBER_BYTES * len(array))
        filled = array.fill_null(False if types.is_boolean(kind) else 0) if array.null_count else array
        cells = filled.to_numpy(zero_copy_only=False).tolist()
    else:
        load.add(OBJECT_BYTES * len(array))
        starts = range(0, len(array), SLICE_ROWS)
        return [cell for start in starts for cell in array.slice(start, SLICE_ROWS).to_pylist()]
    if array.null_count:
        for position in np.flatnonzero(_missing(array)).tolist():
            cells[position] = None
    return cells


def _maps_to_cells(array: pa.Array, load: Load) -> list[Any]:
    offsets = array.offsets.to_numpy()
    first, n_entries = int(offsets[0]), int(offsets[-1] - offsets[0])
    load.add(DICT_BYTES * len(array) + ENTRY_BYTES * n_entries)
    keys = _to_cells(array.keys.slice(first, n_entries), load)
    values = _to_cells(array.items.slice(first, n_entries), load)
    cells = []
    for start, stop in itertools.pairwise((offsets - first).tolist()):
        cell = dict(zip(keys[start:stop], values[start:stop], strict=True))
        if len(cell) != stop - start:
            raise ValueError("a map with a key twice")
        cells.append(cell)
    return cells


def _words_to_cells(array: pa.DictionaryArray, load: Load) -> list[Any]:
    """Converts each dictionary word that a row uses once, and no others."""
    load.add(8 * len(array))
    missing = _missing(array.indices)
    indices = array.indices.fill_null(0).to_numpy().astype(np.int64)
    used = np.unique(indices[~missing])
    words = np.empty(len(used) + 1, dtype=object)
    words[: len(used)] = _to_cells(array.dictionary.take(pa.array(used)), load)
    places = used.searchsorted(indices)
    places[missing] = len(used)
    cells: list[Any] = words[places].tolist()
    return cells
