"""Transformations of distributions: PowerTransformer and QuantileTransformer."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Data, NotCompiled, as_float, as_validated, check_finite
from serving.runtime.compiled.nodes import Transformer, compiles_transformer
from serving.runtime.compiled.transformers.scaling import Scaler

Floats = npt.NDArray[Any]

BOUNDS_THRESHOLD = 1e-7
"""Source: sklearn.preprocessing._data.BOUNDS_THRESHOLD."""


@dataclass
class YeoJohnson(Transformer):
    """Yeo-Johnson power transform of each column, and an optional scaler.

    Source: scipy.stats._morestats._yeojohnson_transform. It is `((1 + x)^λ - 1) / λ` for x >= 0; for x < 0, the
    negative of the same for -x with 2 - λ.
    """

    lambdas: Floats
    scaler: Scaler | None

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Raises:
            ValueError: a number is infinite, before or after the transform.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix, allow_nan=True)
        positive = matrix >= 0
        logs = np.log1p(np.abs(matrix))
        power = np.where(positive, self.lambdas, 2 - self.lambdas)
        # λ = 0 means the logarithm; NaN is the λ of a column that was empty in the fit.
        eps = np.finfo(np.result_type(matrix, self.lambdas)).eps
        is_log = np.where(positive, np.abs(self.lambdas) < eps, ~(np.abs(self.lambdas - 2) > eps))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            out = np.where(is_log, logs, np.expm1(power * logs) / power)
            out = np.where(positive, out, -out).astype(matrix.dtype, copy=False)
        return _scaled(out, self.scaler)


@dataclass
class BoxCox(Transformer):
    """Box-Cox power transform of each column, and an optional scaler."""

    lambdas: Floats
    scaler: Scaler | None

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Raises:
            ValueError: a number is not positive, or is infinite before or after the transform.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix, allow_nan=True)
        if (matrix <= 0).any():
            raise ValueError("The Box-Cox transformation can only be applied to strictly positive data")
        return _scaled(_boxcox(matrix.astype(np.float64), self.lambdas).astype(matrix.dtype), self.scaler)


def _boxcox(matrix: Floats, lambdas: Floats) -> Floats:
    """Source: scipy.special._boxcox.boxcox, whose two forms avoid lost digits and overflow."""
    logs = np.log(matrix)
    is_log = np.abs(lambdas) < 1e-19
    power = np.where(is_log, 1.0, lambdas)
    product = power * logs
    is_small = product < 709.78
    out = np.expm1(np.where(is_small, product, 0.0)) / power
    if not is_small.all():
        with np.errstate(over="ignore"):
            large = np.sign(power) * np.exp(product - np.log(np.abs(power))) - 1 / power
        # NaN takes the second form; it stays NaN in both.
        out = np.where(is_small, out, large)
    return np.where(is_log, logs, out)


def _scaled(matrix: Floats, scaler: Scaler | None) -> Floats:
    if scaler is None:
        return matrix
    check_finite(matrix, allow_nan=True)
    return scaler.apply(matrix)


@dataclass
class QuantileTransformer(Transformer):
    """The rank of each number among its column's quantiles in the fit, optionally mapped to a normal distribution.

    Source: sklearn.preprocessing.QuantileTransformer._transform_col.
    """

    quantiles: Floats
    """Shape `(n_quantiles, n_columns)`."""
    references: Floats
    is_normal: bool
    _ends: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low = np.array([BOUNDS_THRESHOLD - np.spacing(1)])
        self._ends = float(normal_quantile(low)[0]), float(normal_quantile(1 - low)[0])

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Raises:
            ValueError: an infinite number.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix, allow_nan=True)
        out = np.empty_like(matrix)
        for position in range(matrix.shape[1]):
            out[:, position] = self._ranks(matrix[:, position], self.quantiles[:, position])
        if not self.is_normal:
            return out
        normal = normal_quantile(out.astype(np.float64, copy=False)).astype(out.dtype)
        return np.clip(normal.astype(np.float64), *self._ends).astype(out.dtype)

    def _ranks(self, column: Floats, quantiles: Floats) -> Floats:
        if self.is_normal:
            is_low, is_high = (
                column - BOUNDS_THRESHOLD < quantiles[0],
                column + BOUNDS_THRESHOLD > quantiles[-1],
            )
        else:
            is_low, is_high = column == quantiles[0], column == quantiles[-1]
        # From both sides, because quantiles may repeat; NaN stays NaN.
        up = np.interp(column, quantiles, self.references)
        down = np.interp(-column, -quantiles[::-1], -self.references[::-1])
        out = (0.5 * (up - down)).astype(column.dtype)
        out[is_high] = 1
        out[is_low] = 0
        return out


# Numerators and denominators, the highest power first; the first numerator has fewer terms.
_CENTRE = np.array([
    [0.0, 0.0, 0.0, 0.0, -5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1,
     1.39312609387279679503e1, -1.23916583867381258016e0],
    [1.0, 1.95448858338141759834e0, 4.67627912898881538453e0, 8.63602421390890590575e1,
     -2.25462687854119370527e2, 2.00260212380060660359e2, -8.20372256168333339912e1,
     1.59056225126211695515e1, -1.18331621121330003142e0],
])  # fmt: skip
_TAILS = np.array([
    [4.05544892305962419923e0, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.40805073893200834700e1,
     1.46849561928858024014e1, 2.18663306850790267539e0, -1.40256079171354495875e-1,
     -3.50424626827848203418e-2, -8.57456785154685413611e-4],
    [1.0, 1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1,
     1.50425385692907503408e1, 2.50464946208309415979e0, -1.42182922854787788574e-1,
     -3.80806407691578277194e-2, -9.33259480895457427372e-4],
    [3.23774891776946035970e0, 6.91522889068984211695e0, 3.93881025292474443415e0, 1.33303460815807542389e0,
     2.01485389549179081538e-1, 1.23716634817820021358e-2, 3.01581553508235416007e-4,
     2.65806974686737550832e-6, 6.23974539184983293730e-9],
    [1.0, 6.02427039364742014255e0, 3.67983563856160859403e0, 1.37702099489081330271e0,
     2.16236993594496635890e-1, 1.34204006088543189037e-2, 3.28014464682127739104e-4,
     2.89247864745380683936e-6, 6.79019408009981274425e-9],
])  # fmt: skip
_TAIL = 0.13533528323661269189
"""exp(-2)."""


def normal_quantile(probability: Floats) -> Floats:
    """Returns the inverse of the normal distribution function, for float64 in 0 … 1.

    Source: `ndtri` of the Cephes library, which `scipy.stats.norm.ppf` calls; same steps.
    """
    is_upper = probability > 1.0 - _TAIL
    tail = np.where(is_upper, 1.0 - probability, probability)
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = tail - 0.5
        square = centred * centred
        numerator, denominator = _polynomials(square, _CENTRE)
        middle = (centred + centred * (square * numerator / denominator)) * 2.50662827463100050242
        distance = np.sqrt(-2.0 * np.log(tail))
        inverse = 1.0 / distance
        near, near_denominator, far, far_denominator = _polynomials(inverse, _TAILS)
        is_near = distance < 8.0
        correction = (
            inverse * np.where(is_near, near, far) / np.where(is_near, near_denominator, far_denominator)
        )
        outer = distance - np.log(distance) / distance - correction
    out = np.where(tail > _TAIL, middle, np.where(is_upper, outer, -outer))
    return np.where(probability == 0, -np.inf, np.where(probability == 1, np.inf, out))


def _polynomials(x: Floats, coefficients: Floats) -> Floats:
    """Returns the values of several polynomials, one per entry of the first axis."""
    columns = coefficients.reshape(*coefficients.shape, *[1] * x.ndim)
    out = columns[:, 0]
    for position in range(1, columns.shape[1]):
        out = out * x + columns[:, position]
    return out


@compiles_transformer("sklearn.PowerTransformer")
def compile_power_transformer(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a PowerTransformer."""
    scaler = None
    if fitted.standardize:
        inner = fitted._scaler  # noqa: SLF001  # it has no public name
        scaler = Scaler(np.asarray(inner.mean_), np.asarray(inner.scale_), casts_state=True, clips=False)
    # With a float32 λ, all but Box-Cox's C function compute in float32.
    lambdas = np.asarray(fitted.lambdas_)
    if fitted.method == "yeo-johnson":
        return YeoJohnson(lambdas, scaler)
    return BoxCox(lambdas.astype(np.float64), scaler)


@compiles_transformer("sklearn.QuantileTransformer")
def compile_quantile_transformer(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a QuantileTransformer.

    Raises:
        NotCompiled: it ignores the zeros of sparse matrices.
    """
    if fitted.ignore_implicit_zeros:
        raise NotCompiled("it ignores the zeros of sparse matrices")
    is_normal = fitted.output_distribution == "normal"
    return QuantileTransformer(np.asarray(fitted.quantiles_), np.asarray(fitted.references_), is_normal)
