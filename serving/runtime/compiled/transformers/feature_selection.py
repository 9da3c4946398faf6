"""Feature selectors: once fitted, each only selects columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.runtime.compiled.data import Columns, Data, as_validated, check_finite, is_text, select
from serving.runtime.compiled.nodes import Transformer, compiles_transformer


@dataclass
class Selector(Transformer):
    """Some of the columns, side by side."""

    positions: list[int]
    allows_nan: bool
    """Whether NaN is accepted; infinity then is, too.

    Source: sklearn.feature_selection.SelectorMixin.transform, `ensure_all_finite=not allow_nan`.
    """

    def transform(self, data: Data) -> Data:
        """Returns a matrix.

        Raises:
            ValueError: NaN or an infinite number in any column, if that is an error.
        """
        matrix = as_validated(data)
        if not self.allows_nan:
            if isinstance(data, Columns) and any(map(is_text, data.arrays)):
                # Booleans with None make all columns objects, which are checked only for NaN.
                floats = [array for array in data.arrays if array.dtype.kind == "f"]
                if any(np.isnan(array).any() for array in floats):
                    raise ValueError("Input contains NaN")
            else:
                check_finite(matrix)
        return matrix[:, self.positions]


@dataclass
class ColumnSelector(Transformer):
    """Some of the columns, unchanged: a selector that returns frames."""

    positions: list[int]

    def transform(self, data: Data) -> Data:
        """Returns columns."""
        return select(data, self.positions)


@compiles_transformer(
    "sklearn.GenericUnivariateSelect",
    "sklearn.RFE",
    "sklearn.RFECV",
    "sklearn.SelectFdr",
    "sklearn.SelectFpr",
    "sklearn.SelectFromModel",
    "sklearn.SelectFwe",
    "sklearn.SelectKBest",
    "sklearn.SelectPercentile",
    "sklearn.SequentialFeatureSelector",
    "sklearn.VarianceThreshold",
)
def compile_selector(fitted: Any, sample: Data) -> Transformer:
    """Compiles a feature selector."""
    positions = [int(position) for position in fitted.get_support(indices=True)]
    container = (getattr(fitted, "_sklearn_output_config", None) or {}).get("transform", "default")
    if container != "default" and isinstance(sample, Columns):
        return ColumnSelector(positions)
    return Selector(positions, bool(fitted.__sklearn_tags__().input_tags.allow_nan))
