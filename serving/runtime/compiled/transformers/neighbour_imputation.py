"""KNNImputer: missing numbers from the nearest rows of the fit."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Columns, Data, NotCompiled, as_float, as_validated, check_finite
from serving.runtime.compiled.nodes import Transformer, compile_transformer, compiles_transformer

Floats = npt.NDArray[np.float64]


@dataclass
class NeighbourImputer(Transformer):
    """Replaces missing numbers with scikit-learn's exact arithmetic, so that ties in distance are the same."""

    columns: Floats
    """The numbers of the fit, missing ones as NaN; shape `(n_columns, n_known)`."""
    by_column: bool
    """Whether they were column-major in the fit; rounding depends on it."""
    means: Floats
    """By column, for rows without a number in common with any."""
    n_neighbours: int
    by_distance: bool
    """Whether nearer rows have more weight."""
    missing: float | None
    """The number that means missing; None is NaN."""
    kept: list[int]
    """The columns kept: all that were not empty in the fit."""
    indicator: Transformer | None
    """Appended indicator."""
    _known: Floats = field(init=False, repr=False)
    _is_known: npt.NDArray[np.bool_] = field(init=False, repr=False)
    _filled: Floats = field(init=False, repr=False)
    _squares: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._known = self.columns.T if self.by_column else np.ascontiguousarray(self.columns.T)
        self._is_known = ~np.isnan(self._known)
        self._filled = self._known.copy(order="K")
        self._filled[~self._is_known] = 0.0
        self._squares = np.einsum("ij,ij->i", self._filled, self._filled)

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Source: sklearn.impute.KNNImputer.transform.

        Raises:
            ValueError: float32, an infinite number, or NaN if another number means missing.
        """
        matrix = np.array(as_float(as_validated(data)))
        if matrix.dtype != np.float64:
            raise ValueError("float32 is not compiled")
        check_finite(matrix, allow_nan=self.missing is None)
        mask = np.isnan(matrix) if self.missing is None else matrix == self.missing
        out = matrix.copy()
        rows = np.flatnonzero(mask[:, self.kept].any(axis=1))
        if len(rows):
            distances = self._distances(matrix[rows], mask[rows])
            for column in self.kept:
                receivers = np.flatnonzero(mask[rows, column])
                if len(receivers):
                    out[rows[receivers], column] = self._impute(column, distances[receivers])
        out = out[:, self.kept]
        return (
            out if self.indicator is None else np.hstack((out, np.asarray(self.indicator.transform(matrix))))
        )

    def _distances(self, rows: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
        """Source: sklearn.metrics.pairwise.nan_euclidean_distances; NaN if two rows have no column in common."""
        rows[mask] = 0.0
        distances: Floats = -2 * (rows @ self._filled.T)
        distances += np.einsum("ij,ij->i", rows, rows)[:, np.newaxis]
        distances += self._squares
        np.maximum(distances, 0, out=distances)
        distances -= np.dot(rows * rows, ~self._is_known.T)
        distances -= np.dot(mask, (self._filled * self._filled).T)
        np.clip(distances, 0, None, out=distances)
        n_common = np.dot(1 - mask, self._is_known.T)
        distances[n_common == 0] = np.nan
        distances /= np.maximum(1, n_common)
        distances *= rows.shape[1]
        return np.sqrt(distances, out=distances)

    def _impute(self, column: int, distances: Floats) -> Floats:
        donors = np.flatnonzero(self._is_known[:, column])
        distances = distances[:, donors]
        out = np.full(len(distances), self.means[column])
        has_any = ~np.isnan(distances).all(axis=1)
        if not has_any.any():
            return out
        distances = distances[has_any]
        n_neighbours = min(self.n_neighbours, len(donors))
        nearest = np.argpartition(distances, n_neighbours - 1, axis=1)[:, :n_neighbours]
        near = np.take_along_axis(distances, nearest, axis=1)
        weights = np.where(np.isnan(near), 0.0, 1.0)
        if self.by_distance:
            with np.errstate(divide="ignore"):
                weights = 1.0 / near
            # Identical rows get all the weight.
            is_same = np.isinf(weights)
            weights = np.where(is_same.any(axis=1, keepdims=True), is_same, weights)
            weights[np.isnan(weights)] = 0.0
        values = self._known[donors, column].take(nearest)
        out[has_any] = (values * weights).sum(axis=1) / weights.sum(axis=1)
        return out


@compiles_transformer("sklearn.KNNImputer")
def compile_neighbour_imputer(fitted: Any, sample: Data) -> Transformer:
    """Compiles a KNNImputer.

    Raises:
        NotCompiled: its distances or weights are functions, it keeps empty columns, or gets float32.
    """
    if fitted.metric != "nan_euclidean" or fitted.weights not in ("uniform", "distance"):
        raise NotCompiled("custom distances or weights")
    valid = fitted._valid_mask  # noqa: SLF001  # its state is not public
    if fitted.keep_empty_features and not valid.all():
        raise NotCompiled("it keeps empty columns")
    arrays = sample.arrays if isinstance(sample, Columns) else [sample]
    if any(array.dtype.kind not in "fiu" or array.dtype == np.float32 for array in arrays):
        raise NotCompiled("an imputer of float64 gets other columns")
    mask = fitted._mask_fit_X  # noqa: SLF001
    known = np.where(mask, np.nan, fitted._fit_X).astype(np.float64)  # noqa: SLF001
    means = np.ma.array(known, mask=mask).mean(axis=0)
    value = fitted.missing_values
    matrix = as_float(as_validated(sample))
    return NeighbourImputer(
        np.ascontiguousarray(known.T),
        bool(fitted._fit_X.flags.f_contiguous),  # noqa: SLF001
        np.ma.filled(means, np.nan),
        int(fitted.n_neighbors),
        fitted.weights == "distance",
        None if isinstance(value, float) and np.isnan(value) else float(value),
        np.flatnonzero(valid).tolist(),
        compile_transformer(fitted.indicator_, matrix) if fitted.add_indicator else None,
    )
