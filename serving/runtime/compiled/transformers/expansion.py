"""Features computed from all features: PolynomialFeatures, PCA and TruncatedSVD."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Data, NotCompiled, as_float, as_validated, check_finite
from serving.runtime.compiled.nodes import Transformer, compiles_transformer

Array = npt.NDArray[Any]

SMALLEST_DEVIATION_RATIO = 1e-6
"""Ratio of a component's standard deviation to the largest: below it, whitening amplifies rounding errors."""


@dataclass
class PolynomialFeatures(Transformer):
    """Products of features, each computed from a product of one degree less."""

    n_columns: int
    min_degree: int
    max_degree: int
    interaction_only: bool
    include_bias: bool
    order: str
    """Memory order of the result; the sums of later steps depend on it."""
    _factors: list[tuple[Array, Array]] = field(init=False, repr=False)
    """For each degree from 2 on: positions in the degree below, and of the features."""

    def __post_init__(self) -> None:
        # Source: sklearn.preprocessing.PolynomialFeatures.transform. In the degree below, products whose first
        # feature is f or a later one begin at `starts[f]`.
        self._factors = []
        starts = list(range(self.n_columns + 1))
        for _ in range(2, self.max_degree + 1):
            products: list[int] = []
            features: list[int] = []
            new_starts = []
            for feature in range(self.n_columns):
                new_starts.append(len(products))
                start = starts[feature + 1] if self.interaction_only else starts[feature]
                products += range(start, starts[-1])
                features += [feature] * (starts[-1] - start)
            starts = [*new_starts, len(products)]
            self._factors.append((np.array(products, dtype=np.intp), np.array(features, dtype=np.intp)))

    def transform(self, data: Data) -> Data:
        """Returns floats, the degrees side by side.

        Raises:
            ValueError: NaN, or an infinite number.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix)
        blocks = [np.ones((len(matrix), 1), matrix.dtype)] if self.include_bias else []
        if self.min_degree <= 1 <= self.max_degree:
            blocks.append(matrix)
        block = matrix
        for degree, (products, features) in enumerate(self._factors, start=2):
            block = block[:, products] * matrix[:, features]
            if degree >= self.min_degree:
                blocks.append(block)
        out = np.concatenate(blocks, axis=1)
        return np.asarray(out, order="F" if self.order == "F" else "C")


@dataclass
class Projection(Transformer):
    """A matrix product, then a subtraction and a division: PCA and TruncatedSVD."""

    components: Array
    """Shape `(n_components, n_columns)`."""
    offset: Array | None
    """Shape `(1, n_components)`."""
    scale: Array | None
    casts_to_float: bool
    """Whether integers are cast before the product."""

    def transform(self, data: Data) -> Data:
        """Returns shape `(n_rows, n_components)`, floats.

        Raises:
            ValueError: NaN, or an infinite number.
        """
        matrix = as_validated(data)
        if self.casts_to_float:
            matrix = as_float(matrix)
        check_finite(matrix)
        out = matrix @ self.components.T
        if self.offset is not None:
            out -= self.offset
        if self.scale is not None:
            out /= self.scale
        return out


@compiles_transformer("sklearn.PolynomialFeatures")
def compile_polynomial_features(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a PolynomialFeatures."""
    return PolynomialFeatures(
        n_columns=int(fitted.n_features_in_),
        min_degree=int(fitted._min_degree),  # noqa: SLF001  # parsed from `degree`
        max_degree=int(fitted._max_degree),  # noqa: SLF001
        interaction_only=bool(fitted.interaction_only),
        include_bias=bool(fitted.include_bias),
        order=str(fitted.order),
    )


@compiles_transformer("sklearn.PCA")
def compile_pca(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a PCA.

    Raises:
        NotCompiled: it whitens a component without variance, which amplifies rounding errors.
    """
    components = np.asarray(fitted.components_)
    scale = None
    if fitted.whiten:
        deviations = np.sqrt(fitted.explained_variance_)
        if not (deviations > SMALLEST_DEVIATION_RATIO * np.max(deviations)).all():
            raise NotCompiled("a whitened component without variance")
        # Source: sklearn.decomposition._base._BasePCA._transform, which avoids variances close to 0.
        scale = np.maximum(deviations, np.finfo(deviations.dtype).eps)
    return Projection(components, fitted.mean_.reshape(1, -1) @ components.T, scale, casts_to_float=True)


@compiles_transformer("sklearn.TruncatedSVD")
def compile_truncated_svd(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # any numbers
    """Compiles a TruncatedSVD."""
    return Projection(np.asarray(fitted.components_), None, None, casts_to_float=False)
