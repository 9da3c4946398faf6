"""Imputers: SimpleImputer of numbers and of text, and MissingIndicator.

Two nodes, as in scikit-learn: numbers are one matrix of one dtype; if any column of the fit held text, all columns
are Python objects, and each keeps its types.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import (
    Cells,
    Columns,
    Data,
    NotCompiled,
    as_float,
    as_validated,
    check_finite,
    count_rows,
    filled,
    is_text,
)
from serving.runtime.compiled.nodes import Node, Transformer, compiles_transformer

Array = npt.NDArray[Any]


def arrays_of(data: Data) -> list[Array]:
    """Returns the columns, each of shape `(n_rows,)`."""
    return list(data.arrays) if isinstance(data, Columns) else list(filled(data).T)


_INFINITE = (math.inf, -math.inf)


@dataclass
class NumberImputer(Transformer):
    """SimpleImputer of numbers."""

    fills: Array
    """Replacements of missing numbers, one per column kept."""
    kept: list[int] | None
    """The columns kept; None keeps all."""
    missing: float | None
    """The number that means missing; None is NaN."""
    indicated: list[int] | None
    """The columns with an appended indicator; None appends nothing."""
    makes_floats: bool
    """Whether the result is floats (`mean`, `median`) or has the data's dtype."""
    casts: str
    """Dtype of the fill, which must be castable to the data's; `""` is any."""
    _cells: Cells = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._cells = self.fills.tolist()

    def transform(self, data: Data) -> Data:
        """Returns numbers without missing ones.

        Raises:
            ValueError: an infinite number, NaN if another number means missing, or a dtype incompatible with the
                fit.
        """
        matrix = as_validated(data)
        if self.makes_floats:
            matrix = as_float(matrix)
        self._check_dtype(matrix.dtype)
        if self.missing is None:
            is_float = matrix.dtype.kind == "f"
            if self.kept is None and self.indicated is None and (not is_float or np.isfinite(matrix).all()):
                return matrix
            mask = np.isnan(matrix) if is_float else np.zeros(matrix.shape, dtype=bool)
            check_finite(matrix, allow_nan=True)
        else:
            check_finite(matrix)
            mask = matrix == self.missing
        kept, kept_mask = (matrix, mask) if self.kept is None else (matrix[:, self.kept], mask[:, self.kept])
        out = np.where(kept_mask, self.fills.astype(kept.dtype), kept)
        if self.indicated is None:
            return out
        return np.concatenate([out, mask[:, self.indicated]], axis=1)

    def takes_cells(self) -> bool:
        """Whether it only fills in floats."""
        is_plain = self.kept is None and self.missing is None and self.indicated is None
        return is_plain and self.makes_floats and not self.casts and self.fills.dtype == np.float64

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns floats."""
        out = []
        for cell, fill in zip(cells, self._cells, strict=True):
            if type(cell) is bool or cell in _INFINITE:
                raise ValueError("not a finite number")
            out.append(fill if cell is None or cell != cell else cell * 1.0)  # noqa: PLR0124  # NaN
        return out

    def _check_dtype(self, dtype: np.dtype[Any]) -> None:
        if dtype.kind == "b":
            raise ValueError("SimpleImputer does not support booleans")
        if self.casts and not np.can_cast(np.dtype(self.casts), dtype, casting="same_kind"):
            raise ValueError("The fill value cannot be cast to the dtype of the data")


@dataclass
class Fill(Node):
    """Replacements of the cells of one column."""

    replaced: dict[Any, Any]
    """Replacements by cell, possibly including None."""
    missing: Any
    """Replacement of NaN; None keeps it."""
    refuses_missing: bool
    """Whether a missing cell is an error."""

    def of(self, cell: Any) -> Any:
        """Returns the replacement of a cell.

        Raises:
            ValueError: it is missing and must not be.
        """
        if cell == cell:  # noqa: PLR0124  # anything but NaN
            return self.replaced.get(cell, cell)
        if self.refuses_missing:
            raise ValueError("Input contains NaN")
        return cell if self.missing is None else self.missing

    def apply(self, array: Array) -> Array:
        """Returns the column with its cells replaced.

        Raises:
            ValueError: a cell is missing and must not be.
        """
        if not is_text(array):
            return self._apply_to_numbers(array)
        cells = array.tolist()
        out = np.empty(len(cells), dtype=object)
        if not self.replaced and self.missing is not None:
            missing = self.missing
            out[:] = [missing if c != c else c for c in cells]  # noqa: PLR0124
        else:
            out[:] = [self.of(cell) for cell in cells]
        return out

    def _apply_to_numbers(self, array: Array) -> Array:
        # In an object array, a float32 is a Python float.
        out = array.astype(np.float64) if array.dtype == np.float32 else array
        if array.dtype.kind == "f":
            is_nan = np.isnan(array)
            if self.refuses_missing and is_nan.any():
                raise ValueError("Input contains NaN")
            if self.missing is not None:
                out = _put(out, is_nan, self.missing)
        for value, other in self.replaced.items():
            if isinstance(value, (int, float)):
                out = _put(out, array == value, other)
        return out


def _put(array: Array, mask: npt.NDArray[np.bool_], value: Any) -> Array:
    if not mask.any():
        return array
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    out = array.copy() if is_number and array.dtype.kind == "f" else array.astype(object)
    out[mask] = value
    return out


@dataclass
class MissingIndicator(Transformer):
    """Marks missing cells."""

    columns: list[int] | None
    """The columns reported; None is all."""
    seen: list[int] | None
    """The columns that may have missing cells; None is all."""
    missing: Any
    """The value that means missing, or NaN."""

    def transform(self, data: Data) -> Data:
        """Returns booleans.

        Raises:
            ValueError: a column without missing cells in the fit has one, an infinite number, or NaN if another
                value means missing.
        """
        if any(map(is_text, arrays_of(data))):
            mask = self.cells(data)
        else:
            matrix = as_validated(data)
            if matrix.dtype.kind == "b":
                raise ValueError("MissingIndicator does not support booleans")
            check_finite(matrix, allow_nan=_is_nan(self.missing))
            if not _is_nan(self.missing):
                mask = matrix == self.missing
            else:
                mask = np.isnan(matrix) if matrix.dtype.kind == "f" else np.zeros(matrix.shape, dtype=bool)
        if self.seen is not None and np.delete(mask, self.seen, axis=1).any():
            raise ValueError("A column has missing values in transform but had none in fit")
        return mask if self.columns is None else mask[:, self.columns]

    def cells(self, data: Data) -> npt.NDArray[np.bool_]:
        """Returns which cells of all columns are missing, each compared as an object.

        Raises:
            ValueError: NaN if another value means missing.
        """
        columns = [array.tolist() for array in arrays_of(data)]
        mask = np.empty((count_rows(data), len(columns)), dtype=bool)
        for position, cells in enumerate(columns):
            is_nan = [cell != cell for cell in cells]  # noqa: PLR0124
            if not _is_nan(self.missing) and any(is_nan):
                raise ValueError("Input contains NaN")
            mask[:, position] = is_nan if _is_nan(self.missing) else [cell == self.missing for cell in cells]
        return mask


@dataclass
class CellImputer(Transformer):
    """SimpleImputer of columns of which some are text."""

    columns: list[Fill]
    kept: list[int] | None
    """The columns kept; None keeps all."""
    indicator: MissingIndicator | None
    """Appended indicator."""

    def transform(self, data: Data) -> Data:
        """Returns columns.

        Raises:
            ValueError: a missing cell, if another value means missing.
        """
        names = data.names if isinstance(data, Columns) else ("",) * len(self.columns)
        arrays = [fill.apply(array) for fill, array in zip(self.columns, arrays_of(data), strict=True)]
        if self.kept is not None:
            names, arrays = tuple(names[p] for p in self.kept), [arrays[p] for p in self.kept]
        if self.indicator is not None:
            mask = self.indicator.cells(data)
            if self.indicator.columns is not None:
                mask = mask[:, self.indicator.columns]
            names, arrays = names + ("",) * mask.shape[1], arrays + list(mask.T)
        return Columns(names, arrays)

    def after(self, previous: Transformer) -> Transformer | None:
        """Returns one imputer that combines two."""
        fills, own = fills_of(previous), fills_of(self)
        if fills is None or own is None:
            return None
        return CellImputer([_both(first, then) for first, then in zip(fills, own, strict=True)], None, None)


def fills_of(step: Transformer) -> list[Fill] | None:
    """Returns a step's replacements by column if it only imputes cells; else None."""
    if isinstance(step, CellImputer) and step.kept is None and step.indicator is None:
        return step.columns
    return None


def _both(first: Fill, then: Fill) -> Fill:
    replaced = {cell: then.of(other) for cell, other in first.replaced.items()}
    replaced |= {cell: other for cell, other in then.replaced.items() if cell not in replaced}
    if first.refuses_missing or first.missing is None:
        missing, refuses = then.missing, first.refuses_missing or then.refuses_missing
    else:
        missing, refuses = then.of(first.missing), False
    return Fill(replaced, missing, refuses)


def _is_nan(value: Any) -> bool:
    """NaN, or pandas' NA, which means the same."""
    return type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)  # noqa: PLR0124


def _plain(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, (str, bool, int, float)):
        raise NotCompiled(f"cells of type {type(value).__name__}")
    return plain


@compiles_transformer("sklearn.SimpleImputer")
def compile_simple_imputer(fitted: Any, sample: Data) -> Transformer:
    """Compiles a SimpleImputer.

    Raises:
        NotCompiled: it was fitted on numbers and gets text or booleans, or its values are neither text nor numbers.
    """
    statistics = fitted.statistics_.tolist()
    kept = list(range(len(statistics)))
    if not fitted.keep_empty_features:
        kept = [position for position, value in enumerate(statistics) if not _is_nan(value)]
    keeps_all = len(kept) == len(statistics)
    fit_dtype, fill_dtype = fitted._fit_dtype, fitted._fill_dtype  # noqa: SLF001  # these select the node
    if fit_dtype.kind == "O":
        columns = [_compile_fill(fitted.missing_values, fill) for fill in statistics]
        indicator = compile_missing_indicator(fitted.indicator_, sample) if fitted.add_indicator else None
        return CellImputer(columns, None if keeps_all else kept, indicator)
    makes_floats = fitted.strategy not in ("most_frequent", "constant")
    if not makes_floats and any(array.dtype.kind not in "fiu" for array in arrays_of(sample)):
        raise NotCompiled("an imputer of numbers gets other columns")
    return NumberImputer(
        fills=np.array([statistics[position] for position in kept]).astype(fill_dtype),
        kept=None if keeps_all else kept,
        missing=None if _is_nan(fitted.missing_values) else _plain(fitted.missing_values),
        indicated=fitted.indicator_.features_.tolist() if fitted.add_indicator else None,
        makes_floats=makes_floats,
        casts=fill_dtype.str if fitted.strategy == "constant" else "",
    )


def _compile_fill(missing_values: Any, fill: Any) -> Fill:
    is_nan = _is_nan(missing_values)
    if _is_nan(fill):
        # The column is dropped, or (with `keep_empty_features`) filled with its present value.
        return Fill({}, None, refuses_missing=not is_nan)
    fill = _plain(fill)
    if is_nan:
        also_none = type(missing_values).__name__ == "NAType"
        return Fill({None: fill} if also_none else {}, fill, refuses_missing=False)
    known = None if missing_values is None else _plain(missing_values)
    return Fill({known: fill}, None, refuses_missing=True)


@compiles_transformer("sklearn.MissingIndicator")
def compile_missing_indicator(fitted: Any, sample: Data) -> MissingIndicator:  # noqa: ARG001  # any cells
    """Compiles a MissingIndicator.

    Raises:
        NotCompiled: pandas' NA means missing.
    """
    value = fitted.missing_values
    if type(value).__name__ == "NAType":
        raise NotCompiled("its missing value is NA")
    features = fitted.features_.tolist()
    has_all = len(features) == fitted.n_features_in_
    strict = fitted.features == "missing-only" and fitted.error_on_new
    return MissingIndicator(
        columns=None if has_all else features,
        seen=features if strict and not has_all else None,
        missing=value if value is None or _is_nan(value) else _plain(value),
    )
