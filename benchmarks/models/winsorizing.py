"""A custom transformer, which no compiler of pipelines can know.

It is logged with the model as a code path, under the module name `winsorizing`. This project's server imports it from
here, as a module that is installed.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

Matrix = npt.NDArray[np.float64]


class Winsorizer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Clips each feature to quantiles of the training data."""

    def __init__(self, lower: float = 0.01, upper: float = 0.99) -> None:
        self.lower = lower
        self.upper = upper

    def fit(self, features: Any, target: Any = None) -> Self:  # noqa: ARG002  # scikit-learn's interface
        """Learns the quantiles of `features`, shape `(n_rows, n_features)`, sparse or dense."""
        self.low_, self.high_ = np.quantile(_dense(features), (self.lower, self.upper), axis=0)
        return self

    def transform(self, features: Any) -> Matrix:
        """Returns the clipped features, shape `(n_rows, n_features)` float64."""
        return np.asarray(np.clip(_dense(features), self.low_, self.high_))


def _dense(features: Any) -> Matrix:
    return np.asarray(features.toarray() if hasattr(features, "toarray") else features, dtype=np.float64)
