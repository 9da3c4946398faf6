"""SplineTransformer: the values of B-splines at each number."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Data, NotCompiled, as_float, as_validated, check_finite
from serving.runtime.compiled.nodes import Transformer, compiles_transformer

Floats = npt.NDArray[np.float64]


@dataclass
class SplineTransformer(Transformer):
    """B-splines of each column."""

    knots: Floats
    """Shape `(n_columns, n_knots)`."""
    degree: int
    n_splines: int
    """By column."""
    beyond: str
    """Numbers beyond the knots: `continue`, `periodic`, `error` or `linear`; `constant` is `linear` with zero
    slopes."""
    edges: list[Floats]
    """For `linear`: the values and slopes at the lowest and at the highest knot; shape `(n_columns, n_splines)`
    each."""
    zeros_for_missing: bool
    keeps_last: bool
    """Whether the last spline of each column is kept."""
    order: str
    """Memory order of the result."""

    def transform(self, data: Data) -> Data:
        """Returns floats, the splines of the columns side by side.

        Source: sklearn.preprocessing.SplineTransformer.transform.

        Raises:
            ValueError: NaN or an infinite number if not allowed, or a number beyond the knots if that is an error.
        """
        matrix = as_float(as_validated(data))
        if not self.zeros_for_missing:
            check_finite(matrix)
        x = matrix.astype(np.float64)
        low, high = self.knots[:, self.degree], self.knots[:, -self.degree - 1]
        if self.beyond == "periodic":
            with np.errstate(divide="ignore", invalid="ignore"):
                x = np.where(high > low, low + (x - low) % (high - low), 0.0)
        out = self._basis(x)
        if self.beyond == "linear":
            at_low, at_high, slope_low, slope_high = self.edges
            is_low, is_high = x < low, x > high
            if is_low.any():
                out = np.where(is_low[..., None], at_low + (x - low)[..., None] * slope_low, out)
            if is_high.any():
                out = np.where(is_high[..., None], at_high + (x - high)[..., None] * slope_high, out)
        if self.zeros_for_missing:
            out[np.isnan(matrix)] = 0
        if self.beyond == "error" and ((x < low) | (x > high)).any():
            raise ValueError("`X` contains values beyond the limits of the knots.")
        if not self.keeps_last:
            out = out[..., :-1]
        return np.asarray(
            out.reshape(len(out), -1), dtype=matrix.dtype, order="F" if self.order == "F" else "C"
        )

    def _basis(self, x: Floats) -> Floats:
        """The splines' values, shape `(n_rows, n_columns, n_splines)`.

        Source: scipy, interpolate/src/__fitpack.cc, _find_interval and _deBoor_D.
        """
        degree, columns = self.degree, np.arange(len(self.knots))
        n_values = self.knots.shape[1] - degree - 1
        interval = (x[..., None] >= self.knots).sum(axis=2) - 1
        interval = interval.clip(degree, n_values - 1)
        values = [np.ones_like(x)]
        for level in range(1, degree + 1):
            before, values = values, [np.zeros_like(x)]
            for n in range(1, level + 1):
                above = self.knots[columns, interval + n]
                below = self.knots[columns, interval + n - level]
                width = above - below
                is_empty = width == 0
                weight = before[n - 1] / np.where(is_empty, 1.0, width)
                values[n - 1] = np.where(is_empty, values[n - 1], values[n - 1] + weight * (above - x))
                values.append(np.where(is_empty, 0.0, weight * (x - below)))
        out = np.zeros((*x.shape, n_values))
        places = interval[..., None] - degree + np.arange(degree + 1)
        np.put_along_axis(out, places, np.stack(values, axis=2), axis=2)
        if n_values > self.n_splines:
            # Periodic splines wrap around.
            out[..., : n_values - self.n_splines] += out[..., self.n_splines :]
            out = out[..., : self.n_splines]
        return out


@compiles_transformer("sklearn.SplineTransformer")
def compile_spline_transformer(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a SplineTransformer.

    Raises:
        NotCompiled: its output is sparse, or straight lines extend splines of a degree below 2.
    """
    splines = fitted.bsplines_
    degree, n_splines = int(fitted.degree), int(splines[0].c.shape[1])
    if fitted.sparse_output:
        raise NotCompiled("splines as a sparse matrix")
    beyond, edges = str(fitted.extrapolation), []
    if beyond in ("linear", "constant"):
        if degree < 2:
            # scikit-learn then uses other knots for the columns after the first.
            raise NotCompiled("extrapolation of splines of a degree below 2")
        at_low, at_high, slope_low, slope_high = (np.zeros((len(splines), n_splines)) for _ in range(4))
        for column, spline in enumerate(splines):
            low, high = spline.t[degree], spline.t[-degree - 1]
            at_low[column, :degree], at_high[column, -degree:] = spline(low)[:degree], spline(high)[-degree:]
            if beyond == "linear":
                slope_low[column, :degree] = spline(low, nu=1)[:degree]
                slope_high[column, -degree:] = spline(high, nu=1)[-degree:]
        beyond, edges = "linear", [at_low, at_high, slope_low, slope_high]
    return SplineTransformer(
        np.array([spline.t for spline in splines], dtype=np.float64),
        degree,
        n_splines,
        beyond,
        edges,
        getattr(fitted, "handle_missing", "error") == "zeros",
        bool(fitted.include_bias),
        str(fitted.order),
    )
