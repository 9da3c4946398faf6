"""Linear models: a product with the coefficients, and each family's link."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, Matrix, NotCompiled, as_factor, check_finite
from serving.runtime.compiled.links import expit, softmax, two_columns
from serving.runtime.compiled.nodes import Predictor, compiles_predictor

REGRESSORS = (
    "sklearn.LinearRegression",
    "sklearn.Ridge",
    "sklearn.RidgeCV",
    "sklearn.Lasso",
    "sklearn.LassoCV",
    "sklearn.ElasticNet",
    "sklearn.ElasticNetCV",
    "sklearn.MultiTaskLasso",
    "sklearn.MultiTaskLassoCV",
    "sklearn.MultiTaskElasticNet",
    "sklearn.MultiTaskElasticNetCV",
    "sklearn.Lars",
    "sklearn.LarsCV",
    "sklearn.LassoLars",
    "sklearn.LassoLarsCV",
    "sklearn.LassoLarsIC",
    "sklearn.OrthogonalMatchingPursuit",
    "sklearn.OrthogonalMatchingPursuitCV",
    "sklearn.BayesianRidge",
    "sklearn.ARDRegression",
    "sklearn.HuberRegressor",
    "sklearn.TheilSenRegressor",
    "sklearn.QuantileRegressor",
    "sklearn.SGDRegressor",
    "sklearn.PassiveAggressiveRegressor",
    "sklearn.LinearSVR",
)

GENERALIZED = ("sklearn.PoissonRegressor", "sklearn.GammaRegressor", "sklearn.TweedieRegressor")

WITHOUT_PROBABILITIES = (
    "sklearn.LinearSVC",
    "sklearn.Perceptron",
    "sklearn.PassiveAggressiveClassifier",
    "sklearn.RidgeClassifier",
    "sklearn.RidgeClassifierCV",
)

WITH_SOFTMAX = (
    "sklearn.LogisticRegression",
    "sklearn.LogisticRegressionCV",
    "sklearn.LinearDiscriminantAnalysis",
)


@dataclass
class LinearRegressor(Predictor):
    """`X @ coef + intercept`, or its exponential for a log link."""

    coef: Matrix
    """Shape `(n_columns,)` or `(n_columns, n_targets)`, or the transpose of the latter."""
    is_transposed: bool
    intercept: npt.NDArray[Any] | float
    """A Python number if there is none: it keeps float32."""
    wants_float: bool
    """Whether integers become float64 before the product."""
    has_log_link: bool

    _weights: Matrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._weights = self.coef.T if self.is_transposed else self.coef

    def output(self, data: Data) -> Output:
        """Returns the predictions, shape `(n_rows,)` or `(n_rows, n_targets)`."""
        matrix = as_factor(data)
        if self.wants_float and matrix.dtype.kind != "f":
            matrix = matrix.astype(np.float64)
        check_finite(matrix)
        values = matrix @ self._weights + self.intercept
        return Output(values=np.exp(values) if self.has_log_link else values)


@dataclass
class LinearClassifier(Predictor):
    """A score per class, or one score for two classes, and the probabilities from it."""

    coef: Matrix
    """Shape `(n_columns, n_scores)`, or its transpose; `(n_columns,)` for one score."""
    is_transposed: bool
    intercept: npt.NDArray[Any] | float
    probabilities_by: str | None
    """`sigmoid`, `softmax`, `one_vs_rest`, `modified_huber`; None if the original has none."""
    classes: npt.NDArray[Any]

    _weights: Matrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._weights = self.coef.T if self.is_transposed else self.coef

    def output(self, data: Data) -> Output:
        """Returns labels by sign or largest score, and probabilities."""
        scores = self.decision(data)
        picked = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        labels = self.classes.take(picked)
        if self.probabilities_by is None:
            return Output(labels=labels)
        return Output(labels=labels, probabilities=_PROBABILITIES[self.probabilities_by](scores))

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the scores, shape `(n_rows,)` for two classes, else `(n_rows, n_classes)`."""
        matrix = as_factor(data)
        check_finite(matrix)
        scores: npt.NDArray[Any] = matrix @ self._weights + self.intercept
        return scores.reshape(-1) if scores.ndim > 1 and scores.shape[1] == 1 else scores


def _sigmoid(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return two_columns(expit(scores))


def _one_vs_rest(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Source: scikit-learn, LinearClassifierMixin._predict_proba_lr.
    return _normalized(expit(scores))


def _modified_huber(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Source: scikit-learn, SGDClassifier.predict_proba; for two classes the result is always float64.
    if scores.ndim == 1:
        return two_columns((np.clip(scores, -1, 1).astype(np.float64) + 1.0) / 2.0)
    return _normalized((np.clip(scores, -1, 1) + 1.0) / 2.0)


def _normalized(probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows of zeros become uniform, others sum to one."""
    total = probabilities.sum(axis=1)
    is_empty = total == 0
    if is_empty.any():
        probabilities[is_empty] = 1
        total[is_empty] = probabilities.shape[1]
    out: npt.NDArray[Any] = probabilities / total.reshape(-1, 1)
    return out


_PROBABILITIES = {
    "sigmoid": _sigmoid,
    "softmax": softmax,
    "one_vs_rest": _one_vs_rest,
    "modified_huber": _modified_huber,
}


def coefficients(coef: Any) -> tuple[Matrix, bool]:
    """Returns the stored coefficients of shape `(n_scores, n_columns)`, and whether they are transposed.

    A plan stores arrays in C order; the flag keeps the memory order, which the rounding of products depends on.

    Raises:
        NotCompiled: they are sparse.
    """
    if not isinstance(coef, np.ndarray):
        raise NotCompiled("its coefficients are sparse")
    if coef.ndim == 1:
        return coef, False
    if coef.flags.f_contiguous and not coef.flags.c_contiguous:
        return coef.T, False
    return coef, True


def intercept_of(fitted: Any) -> npt.NDArray[Any] | float:
    """Returns the intercept: an array, even for one number, or a Python number."""
    intercept = fitted.intercept_
    return np.asarray(intercept) if isinstance(intercept, np.generic | np.ndarray) else float(intercept)


@compiles_predictor(*REGRESSORS)
def compile_linear_regressor(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # the sample does not matter
    """Compiles regressors that predict the product itself."""
    coef, is_transposed = coefficients(fitted.coef_)
    return LinearRegressor(coef, is_transposed, intercept_of(fitted), wants_float=False, has_log_link=False)


@compiles_predictor(*GENERALIZED)
def compile_generalized_linear_regressor(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles generalised linear models."""
    link = type(fitted._base_loss.link).__name__  # noqa: SLF001  # for Tweedie, it depends on link and power
    if link not in ("LogLink", "IdentityLink"):
        raise NotCompiled(f"{link} has no compiled form")
    coef, is_transposed = coefficients(fitted.coef_)
    return LinearRegressor(
        coef, is_transposed, intercept_of(fitted), wants_float=True, has_log_link=link == "LogLink"
    )


@compiles_predictor(*WITHOUT_PROBABILITIES)
def compile_linear_classifier(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles classifiers without probabilities."""
    return _classifier(fitted, None)


@compiles_predictor(*WITH_SOFTMAX)
def compile_logistic_classifier(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles logistic regression and linear discriminant analysis."""
    return _classifier(fitted, "sigmoid" if len(_classes(fitted)) <= 2 else "softmax")


@compiles_predictor("sklearn.SGDClassifier")
def compile_sgd_classifier(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles SGDClassifier with any loss."""
    if fitted.loss == "modified_huber":
        return _classifier(fitted, "modified_huber")
    if fitted.loss != "log_loss":
        return _classifier(fitted, None)
    return _classifier(fitted, "sigmoid" if len(_classes(fitted)) == 2 else "one_vs_rest")


def _classifier(fitted: Any, probabilities_by: str | None) -> LinearClassifier:
    coef, is_transposed = coefficients(fitted.coef_)
    return LinearClassifier(coef, is_transposed, intercept_of(fitted), probabilities_by, _classes(fitted))


def _classes(fitted: Any) -> npt.NDArray[Any]:
    binarizer = getattr(fitted, "_label_binarizer", None)
    if binarizer is not None and binarizer.y_type_.startswith("multilabel"):
        raise NotCompiled("it has several labels per row")
    classes: npt.NDArray[Any] = fitted.classes_
    if len(classes) < 2:
        raise NotCompiled("it has only one class")
    return classes
