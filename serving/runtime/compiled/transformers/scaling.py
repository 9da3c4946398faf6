"""Scalers of numbers, and of rows to unit length."""

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Cells, Data, NotCompiled, as_float, as_validated, check_finite
from serving.runtime.compiled.nodes import Transformer, compiles_transformer


def finite_floats(cells: Cells) -> list[float]:
    """Returns numbers as floats.

    Raises:
        ValueError: one is missing or infinite.
        TypeError: one is None or text.
    """
    out = [cell * 1.0 for cell in cells]
    if not math.isfinite(sum(out)):
        raise ValueError("not finite")
    return out


@dataclass
class Scaler(Transformer):
    """`(x - center) / scale`: StandardScaler, RobustScaler, MaxAbsScaler."""

    center: npt.NDArray[Any] | None
    scale: npt.NDArray[Any] | None
    casts_state: bool
    """Whether `center` and `scale` are first cast to the data's dtype, which matters for float32."""
    clips: bool
    """Whether the result is clipped to -1 … 1."""

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Raises:
            ValueError: an infinite number.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix, allow_nan=True)
        return self.apply(matrix)

    def takes_cells(self) -> bool:
        """Whether it computes in float64."""
        return not self.clips and all(
            state is None or state.dtype == np.float64 for state in (self.center, self.scale)
        )

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns floats."""
        out = finite_floats(cells)
        if self.center is not None:
            out = list(map(operator.sub, out, self.center.tolist()))
        if self.scale is not None:
            out = list(map(operator.truediv, out, self.scale.tolist()))
        return out

    def apply(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns scaled floats, like `transform`, without checks."""
        out = matrix
        if self.center is not None:
            out = _in_dtype(np.subtract, out, self.center, casts_state=self.casts_state)
        if self.scale is not None:
            out = _in_dtype(np.divide, out, self.scale, casts_state=self.casts_state)
        return np.clip(out, -1.0, 1.0) if self.clips else out


def _in_dtype(
    operation: np.ufunc, matrix: npt.NDArray[Any], state: npt.NDArray[Any], *, casts_state: bool = False
) -> npt.NDArray[Any]:
    """Returns the result of an operation such as `matrix -= state`, in the matrix's dtype."""
    if matrix.dtype == state.dtype:
        return operation(matrix, state)  # type: ignore[no-any-return]
    if casts_state:
        return operation(matrix, state.astype(matrix.dtype))  # type: ignore[no-any-return]
    return operation(matrix, state).astype(matrix.dtype)  # type: ignore[no-any-return]


@dataclass
class MinMaxScaler(Transformer):
    """`x * scale + min`."""

    scale: npt.NDArray[Any]
    min: npt.NDArray[Any]
    limits: list[float] | None
    """Limits of the result; None does not clip."""

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Raises:
            ValueError: an infinite number.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix, allow_nan=True)
        out = _in_dtype(np.add, _in_dtype(np.multiply, matrix, self.scale), self.min)
        return out if self.limits is None else np.clip(out, self.limits[0], self.limits[1])

    def takes_cells(self) -> bool:
        """Whether it computes in float64."""
        return self.limits is None and self.scale.dtype == self.min.dtype == np.float64

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns floats."""
        scaled = map(operator.mul, finite_floats(cells), self.scale.tolist())
        return list(map(operator.add, scaled, self.min.tolist()))


@dataclass
class Normalizer(Transformer):
    """Rows of length 1."""

    norm: str

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Raises:
            ValueError: NaN, or an infinite number.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix)
        if self.norm == "l1":
            norms = np.abs(matrix).sum(axis=1)
        elif self.norm == "l2":
            norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
        else:
            norms = np.abs(matrix).max(axis=1)
        # Source: sklearn.preprocessing._data._handle_zeros_in_scale; also for values close to 0.
        norms[norms < 10 * np.finfo(norms.dtype).eps] = 1.0
        return matrix / norms[:, None]  # type: ignore[no-any-return]


@dataclass
class Binarizer(Transformer):
    """1 above a threshold, 0 elsewhere."""

    threshold: float

    def transform(self, data: Data) -> Data:
        """Returns numbers of the data's dtype.

        Raises:
            ValueError: NaN, or an infinite number.
        """
        matrix = as_validated(data)
        check_finite(matrix)
        floats = matrix if matrix.dtype.kind == "f" else matrix.astype(np.float64)
        return (floats > self.threshold).astype(matrix.dtype)


@compiles_transformer("sklearn.StandardScaler")
def compile_standard_scaler(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a StandardScaler."""
    center = np.asarray(fitted.mean_) if fitted.with_mean else None
    scale = np.asarray(fitted.scale_) if fitted.with_std else None
    return Scaler(center, scale, casts_state=True, clips=False)


@compiles_transformer("sklearn.RobustScaler")
def compile_robust_scaler(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a RobustScaler."""
    center = np.asarray(fitted.center_) if fitted.with_centering else None
    scale = np.asarray(fitted.scale_) if fitted.with_scaling else None
    return Scaler(center, scale, casts_state=False, clips=False)


@compiles_transformer("sklearn.MaxAbsScaler")
def compile_max_abs_scaler(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a MaxAbsScaler."""
    return Scaler(None, np.asarray(fitted.scale_), casts_state=False, clips=bool(fitted.clip))


@compiles_transformer("sklearn.MinMaxScaler")
def compile_min_max_scaler(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a MinMaxScaler."""
    limits = [float(limit) for limit in fitted.feature_range] if fitted.clip else None
    return MinMaxScaler(np.asarray(fitted.scale_), np.asarray(fitted.min_), limits)


@compiles_transformer("sklearn.Normalizer")
def compile_normalizer(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a Normalizer."""
    return Normalizer(str(fitted.norm))


@compiles_transformer("sklearn.Binarizer")
def compile_binarizer(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a Binarizer.

    Raises:
        NotCompiled: its threshold is an array or a NumPy number, whose precision matters.
    """
    if type(fitted.threshold) not in (int, float):
        raise NotCompiled("a threshold that is not a Python number")
    return Binarizer(float(fitted.threshold))
