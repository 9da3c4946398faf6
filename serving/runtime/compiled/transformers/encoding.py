"""Encoders of categories: OneHotEncoder, OrdinalEncoder, TargetEncoder; and KBinsDiscretizer.

Each category is looked up in a dictionary, even behind imputers: their effect on a cell is known when the pipeline
is compiled, and goes into the dictionary.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import (
    Cells,
    Data,
    NotCompiled,
    as_float,
    as_validated,
    check_finite,
    count_rows,
)
from serving.runtime.compiled.nodes import Node, Transformer, compiles_transformer
from serving.runtime.compiled.transformers.imputation import (
    Fill,
    arrays_of,
    fills_of,
)

Array = npt.NDArray[Any]

NOTHING, REFUSED = -1, -2
"""Codes of a cell without its own output, and of one that the original rejects."""


class _Codes(dict[Any, int]):
    """The codes of a column's cells; computes those of cells outside the dictionary."""

    def __init__(self, column: "Categories") -> None:
        super().__init__(column.codes)
        self.column = column
        if column.missing != REFUSED:
            self[math.nan] = column.missing  # found by identity: the codecs' NaN

    def __missing__(self, cell: Any) -> int:
        column = self.column
        if cell != cell:  # noqa: PLR0124  # NaN
            code = column.missing
        elif column.refuses_infinity and isinstance(cell, float) and math.isinf(cell):
            raise ValueError("Input contains infinity")
        else:
            code = column.unknown
        if code == REFUSED:
            raise ValueError("Found unknown categories, or missing ones, during transform")
        return code


@dataclass
class Categories(Node):
    """The codes of one column's cells."""

    codes: dict[Any, int]
    missing: int
    """The code of NaN."""
    unknown: int
    """The code of cells outside the dictionary."""
    refuses_infinity: bool
    """Whether the categories are numbers; then infinity is an error."""
    table: _Codes = field(init=False, repr=False)
    _numbers: tuple[Array, Array] | None = field(init=False, repr=False)
    """Sorted categories, if all are numbers, and their codes."""

    def __post_init__(self) -> None:
        self.table = _Codes(self)
        self._numbers = None
        if self.codes and all(type(cell) in (int, float) for cell in self.codes):
            ordered = sorted(self.codes)
            numbers = np.array(ordered)
            if numbers.dtype.kind in "if":
                self._numbers = numbers, np.array([self.codes[number] for number in ordered])

    def of(self, array: Array) -> Array:
        """Returns the codes of a column.

        Raises:
            ValueError: a cell is rejected.
        """
        if self._numbers is None or array.dtype.kind not in "fiu":
            return np.fromiter(map(self.table.__getitem__, array.tolist()), np.intp, len(array))
        numbers, codes = self._numbers
        positions = np.searchsorted(numbers, array)
        np.minimum(positions, len(numbers) - 1, out=positions)
        out = np.where(numbers[positions] == array, codes[positions], self.unknown)
        if array.dtype.kind == "f":
            if self.refuses_infinity and np.isinf(array).any():
                raise ValueError("Input contains infinity")
            out[np.isnan(array)] = self.missing
        if (out == REFUSED).any():
            raise ValueError("Found unknown categories, or missing ones, during transform")
        return out

    def after(self, fill: Fill) -> "Categories":
        """Returns the codes of cells before an imputer."""

        def code_of(cell: Any) -> int:
            return self.codes.get(cell, self.unknown)

        codes = self.codes | {cell: code_of(other) for cell, other in fill.replaced.items()}
        if fill.refuses_missing:
            missing = REFUSED
        else:
            missing = self.missing if fill.missing is None else code_of(fill.missing)
        # Looking up a cell outside the dictionary raises if it is rejected.
        codes = {cell: code for cell, code in codes.items() if code != REFUSED}
        return Categories(codes, missing, self.unknown, refuses_infinity=False)


def _after(columns: list[Categories], previous: Transformer) -> list[Categories] | None:
    fills = fills_of(previous)
    if fills is None:
        return None
    return [column.after(fill) for column, fill in zip(columns, fills, strict=True)]


@dataclass
class OneHotEncoder(Transformer):
    """A 1 at the position of each cell's category; the codes are positions in the row."""

    columns: list[Categories]
    width: int
    dtype: str

    def transform(self, data: Data) -> Data:
        """Returns shape `(n_rows, width)`.

        Raises:
            ValueError: an unknown category, if that is an error.
        """
        arrays = arrays_of(data)
        n_rows = count_rows(data)
        if n_rows == 1:
            out = np.zeros((1, self.width), self.dtype)
            row = out[0]
            for column, array in zip(self.columns, arrays, strict=True):
                place = column.table[array.item(0)]
                if place >= 0:
                    row[place] = 1
            return out
        places = np.empty((n_rows, len(self.columns)), dtype=np.intp)
        for position, (column, array) in enumerate(zip(self.columns, arrays, strict=True)):
            places[:, position] = column.of(array)
        return _ones(places, self.width, self.dtype)

    def takes_cells(self) -> bool:
        """Whether its output is float64."""
        return np.dtype(self.dtype) == np.float64

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns zeros and ones."""
        out = [0.0] * self.width
        for column, cell in zip(self.columns, cells, strict=True):
            place = column.table[cell]
            if place >= 0:
                out[place] = 1.0
        return out

    def after(self, previous: Transformer) -> Transformer | None:
        """Returns an encoder that also fills in missing cells."""
        columns = _after(self.columns, previous)
        return None if columns is None else OneHotEncoder(columns, self.width, self.dtype)


def _ones(places: Array, width: int, dtype: npt.DTypeLike) -> Array:
    """Returns zeros with ones at the positions in each row; negative positions are ignored."""
    out = np.zeros((len(places), width), dtype)
    flat = places + (np.arange(len(places)) * width)[:, None]
    has_place = places >= 0
    out.ravel()[flat.ravel() if has_place.all() else flat[has_place]] = 1
    return out


@dataclass
class CategoryValues(Transformer):
    """Replaces each cell by a number, or one per class: OrdinalEncoder and TargetEncoder."""

    columns: list[Categories]
    values: Array
    """Shape `(n_codes,)` or `(n_codes, n_classes)`: the output of each code, column after column."""

    def transform(self, data: Data) -> Data:
        """Returns shape `(n_rows, n_columns)`, or `(n_rows, n_columns * n_classes)`.

        Raises:
            ValueError: an unknown category, if that is an error.
        """
        arrays = arrays_of(data)
        n_rows = count_rows(data)
        if n_rows == 1:
            zipped = zip(self.columns, arrays, strict=True)
            codes: Any = [column.table[array.item(0)] for column, array in zipped]
        else:
            codes = np.empty((n_rows, len(self.columns)), dtype=np.intp)
            for position, (column, array) in enumerate(zip(self.columns, arrays, strict=True)):
                codes[:, position] = column.of(array)
        return self.values[codes].reshape(n_rows, -1)  # type: ignore[no-any-return]

    def takes_cells(self) -> bool:
        """Whether a cell becomes one float64."""
        return self.values.ndim == 1 and self.values.dtype == np.float64

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns the cells' values."""
        values = self.values
        return [values.item(column.table[cell]) for column, cell in zip(self.columns, cells, strict=True)]

    def after(self, previous: Transformer) -> Transformer | None:
        """Returns an encoder that also fills in missing cells."""
        columns = _after(self.columns, previous)
        return None if columns is None else CategoryValues(columns, self.values)


@dataclass
class Discretizer(Transformer):
    """The bin of each number."""

    edges: list[list[float]]
    """By column, the edges between its bins."""
    is_one_hot: bool
    dtype: str
    """Dtype that the numbers are first cast to; `""` keeps float32 and float64."""
    _starts: Array = field(init=False, repr=False)
    _width: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ends = np.cumsum([0] + [len(edges) + 1 for edges in self.edges])
        self._starts, self._width = ends[:-1], int(ends[-1])

    def transform(self, data: Data) -> Data:
        """Returns bins as floats, or a 1 at the position of each bin.

        Raises:
            ValueError: NaN, or an infinite number.
        """
        matrix = as_validated(data)
        matrix = matrix.astype(self.dtype, copy=False) if self.dtype else as_float(matrix)
        check_finite(matrix)
        if len(matrix) == 1:
            cells = zip(self.edges, matrix[0].tolist(), strict=True)
            bins = np.array([[bisect_right(edges, cell) for edges, cell in cells]], dtype=np.intp)
        else:
            bins = np.empty(matrix.shape, dtype=np.intp)
            for position, edges in enumerate(self.edges):
                bins[:, position] = np.searchsorted(edges, matrix[:, position], side="right")
        if self.is_one_hot:
            return _ones(bins + self._starts, self._width, matrix.dtype)
        return bins.astype(matrix.dtype)


def _compile_categories(
    categories: Array, codes: Sequence[int], unknown: int, *, unseen_missing: int
) -> Categories:
    """Returns the dictionary of a column.

    Args:
        categories: of one column.
        codes: of the categories.
        unknown: the code of other cells.
        unseen_missing: the code of NaN if it is not a category.
    """
    known: dict[Any, int] = {}
    missing = unseen_missing
    for cell, code in zip(categories.tolist(), codes, strict=True):
        plain = cell.item() if isinstance(cell, np.generic) else cell
        if isinstance(plain, float) and math.isnan(plain):
            missing = code
        elif plain is None or isinstance(plain, (str, bool, int, float)):
            known[plain] = code
        else:
            raise NotCompiled(f"categories of type {type(plain).__name__}")
    return Categories(known, missing, unknown, refuses_infinity=categories.dtype.kind in "fiu")


def _grouped(fitted: Any, column: int, n_categories: int) -> tuple[list[int], int | None]:
    """Returns the codes after merging infrequent categories, and the code of the merged one."""
    mapping = fitted._default_to_infrequent_mappings[column] if fitted._infrequent_enabled else None  # noqa: SLF001
    if mapping is None:
        return list(range(n_categories)), None
    # OrdinalEncoder omits the missing category, which is the last, from the mapping.
    codes = [int(code) for code in mapping] + list(range(len(mapping), n_categories))
    return codes, int(mapping.max())


@compiles_transformer("sklearn.OneHotEncoder")
def compile_one_hot_encoder(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any cells
    """Compiles a OneHotEncoder.

    Raises:
        NotCompiled: its categories are neither text, numbers nor booleans.
    """
    dropped = fitted._drop_idx_after_grouping  # noqa: SLF001  # `drop_idx_` counts the ungrouped categories
    columns: list[Categories] = []
    start = 0
    for position, categories in enumerate(fitted.categories_):
        codes, infrequent = _grouped(fitted, position, len(categories))
        drop = None if dropped is None else dropped[position]

        def place(code: int, start: int = start, drop: int | None = drop) -> int:
            if drop is not None and code >= drop:
                return NOTHING if code == drop else start + code - 1
            return start + code

        if fitted.handle_unknown == "error":
            unknown = REFUSED
        elif fitted.handle_unknown == "ignore" or infrequent is None:
            unknown = NOTHING
        else:
            unknown = place(infrequent)
        places = [place(code) for code in codes]
        columns.append(_compile_categories(categories, places, unknown, unseen_missing=unknown))
        start += int(fitted._n_features_outs[position])  # noqa: SLF001  # it has no public name
    return OneHotEncoder(columns, start, np.dtype(fitted.dtype).str)


@compiles_transformer("sklearn.OrdinalEncoder")
def compile_ordinal_encoder(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any cells
    """Compiles an OrdinalEncoder.

    Raises:
        NotCompiled: its categories are neither text, numbers nor booleans.
    """
    columns: list[Categories] = []
    values: list[float] = []
    for position, categories in enumerate(fitted.categories_):
        start = len(values)
        codes, _ = _grouped(fitted, position, len(categories))
        values += codes
        if position in fitted._missing_indices:  # noqa: SLF001  # it has no public name
            values[start + fitted._missing_indices[position]] = fitted.encoded_missing_value  # noqa: SLF001
        unknown = REFUSED
        if fitted.handle_unknown == "use_encoded_value":
            unknown = len(values)
            values.append(fitted.unknown_value)
        own = range(start, start + len(codes))
        columns.append(_compile_categories(categories, own, unknown, unseen_missing=unknown))
    return CategoryValues(columns, np.array(values).astype(fitted.dtype))


@compiles_transformer("sklearn.TargetEncoder")
def compile_target_encoder(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any cells
    """Compiles a TargetEncoder.

    Raises:
        NotCompiled: its categories are neither text, numbers nor booleans.
    """
    n_classes = len(fitted.classes_) if fitted.target_type_ == "multiclass" else 1
    columns: list[Categories] = []
    blocks: list[Array] = []
    start = 0
    for position, categories in enumerate(fitted.categories_):
        encodings = fitted.encodings_[position * n_classes : (position + 1) * n_classes]
        unknown = start + len(categories)
        # The value for all other cells follows those of the categories.
        blocks += [np.column_stack(encodings), np.reshape(fitted.target_mean_, (1, n_classes))]
        own = range(start, unknown)
        columns.append(_compile_categories(categories, own, unknown, unseen_missing=unknown))
        start = unknown + 1
    return CategoryValues(columns, np.concatenate(blocks).astype(np.float64))


@compiles_transformer("sklearn.KBinsDiscretizer")
def compile_discretizer(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a KBinsDiscretizer."""
    edges = [column[1:-1].tolist() for column in fitted.bin_edges_]
    dtype = "" if fitted.dtype is None else np.dtype(fitted.dtype).str
    return Discretizer(edges, fitted.encode != "ordinal", dtype)
