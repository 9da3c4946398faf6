"""Categories in boosters: codes of cells, and trees that split by sets of codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.categories import INTEGER, NO_CATEGORY, NUMBER
from serving.runtime.categories import Categories as Known
from serving.runtime.compiled.data import Columns, Data, NotCompiled, is_text
from serving.runtime.compiled.nodes import Node
from serving.runtime.compiled.transformers.encoding import Categories


@dataclass
class CodedColumns(Node):
    """Columns that a booster gets as codes of categories."""

    positions: list[int]
    columns: list[Categories]
    """By position."""

    def encode(self, data: Data) -> Data:
        """Returns the data with codes in place of categories; NaN for a missing or unknown one."""
        if not isinstance(data, Columns):
            return data
        arrays = list(data.arrays)
        for position, column in zip(self.positions, self.columns, strict=True):
            codes = column.of(arrays[position]).astype(np.float64)
            codes[codes < 0] = np.nan
            arrays[position] = codes
        return Columns(data.names, arrays)


def column_kind(array: npt.NDArray[Any]) -> str:
    """Returns a column's kind; integers with missing values are floats."""
    if array.dtype.kind == NUMBER and np.isnan(array).any():
        known = array[np.isfinite(array)]
        return INTEGER if len(known) and (known == np.trunc(known)).all() else NUMBER
    return array.dtype.kind


def code_columns(categories: Mapping[int, Known], sample: Data) -> CodedColumns | None:
    """Returns the columns with categories; None if there are none.

    Raises:
        NotCompiled: a column of text has none.
    """
    arrays = sample.arrays if isinstance(sample, Columns) else []
    if any(is_text(array) and position not in categories for position, array in enumerate(arrays)):
        raise NotCompiled("boosters take no text")
    columns = [
        Categories(
            known.codes(arrays[position].dtype.kind),
            NO_CATEGORY,
            NO_CATEGORY,
            refuses_infinity=False,
        )
        for position, known in categories.items()
    ]
    return CodedColumns(list(categories), columns) if columns else None


@dataclass
class SetColumns(Node):
    """The sets of codes that trees split by, each as a column split at one half."""

    features: npt.NDArray[np.intp]
    """Shape `(n_sets,)`: the column of each set."""
    tables: npt.NDArray[np.bool_]
    """Shape `(n_sets, n_codes + 1)`: whether a code goes right; the last is for other numbers."""
    of_xgboost: bool
    """In XGBoost the node decides about NaN, and -0.5 is not a code; in LightGBM NaN is not a code, and -0.5 is 0."""

    def append(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the matrix with the columns appended."""
        if not len(self.features):
            return matrix
        n_codes = self.tables.shape[1] - 1
        # Source: XGBoost, src/common/categorical.h, Decision; LightGBM, include/LightGBM/tree.h, CategoricalDecision.
        codes = (np.floor if self.of_xgboost else np.trunc)(matrix.take(self.features, axis=1))
        is_code = (codes >= 0) & (codes < n_codes)
        places = np.where(is_code, codes, n_codes).astype(np.intp)
        columns = self.tables[np.arange(len(self.features)), places].astype(matrix.dtype)
        if self.of_xgboost:
            columns[np.isnan(codes)] = np.nan
        return np.concatenate([matrix, columns], axis=1)


class SetCollector:
    """Collects the sets while trees are converted."""

    def __init__(self, n_columns: int, *, others_go_right: bool) -> None:
        self._n_columns = n_columns
        self._others_go_right = others_go_right
        self._sets: dict[tuple[int, bytes], int] = {}
        self._goes_right: list[npt.NDArray[np.bool_]] = []
        self._features: list[int] = []

    @property
    def n_columns(self) -> int:
        """The number of all columns: the input's, and one per set."""
        return self._n_columns + len(self._features)

    def column(self, feature: int, goes_right: npt.NDArray[np.bool_]) -> int:
        """Returns the column for a set, given whether each code goes right."""
        key = (feature, goes_right.tobytes())
        if key not in self._sets:
            self._sets[key] = self.n_columns
            self._goes_right.append(goes_right)
            self._features.append(feature)
        return self._sets[key]

    def columns(self, *, of_xgboost: bool) -> SetColumns:
        """Returns all sets."""
        width = max(map(len, self._goes_right), default=0)
        tables = np.full((len(self._goes_right), width + 1), self._others_go_right)
        for row, goes_right in zip(tables, self._goes_right, strict=True):
            row[: len(goes_right)] = goes_right
        return SetColumns(np.array(self._features, dtype=np.intp), tables, of_xgboost)
