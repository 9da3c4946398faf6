"""Bayes' rule: naive Bayes, and quadratic discriminant analysis."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import (
    Columns,
    Data,
    Matrix,
    NotCompiled,
    as_factor,
    as_validated,
    check_finite,
    is_text,
)
from serving.runtime.compiled.links import log_sum_exp
from serving.runtime.compiled.nodes import Predictor, compiles_predictor
from serving.runtime.compiled.sparse import Sparse


class Bayes(Predictor):
    """Base of naive Bayes: output from the joint log-likelihood of row and class."""

    classes: npt.NDArray[Any]

    def joint(self, data: Data) -> Matrix:
        """Returns the joint log-likelihood, shape `(n_rows, n_classes)`."""
        raise NotImplementedError

    def output(self, data: Data) -> Output:
        """Returns the most probable labels and the normalised likelihoods."""
        joint = self.joint(data)
        labels = self.classes.take(joint.argmax(axis=1))
        return Output(labels=labels, probabilities=np.exp(joint - log_sum_exp(joint)))


@dataclass
class GaussianBayes(Bayes):
    """A normal distribution per class and column."""

    means: Matrix
    """Shape `(n_classes, n_columns)`, as of the variances."""
    variances: Matrix
    prior: npt.NDArray[Any]
    classes: npt.NDArray[Any]

    _log_prior: npt.NDArray[Any] = field(init=False, repr=False)
    _log_scale: npt.NDArray[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._log_prior = np.log(self.prior)
        self._log_scale = np.array([-0.5 * np.sum(np.log(2.0 * np.pi * row)) for row in self.variances])

    def joint(self, data: Data) -> Matrix:
        """Returns the joint log-likelihood.

        Source: sklearn.naive_bayes.GaussianNB._joint_log_likelihood, all classes at once.
        """
        matrix = as_validated(data)
        check_finite(matrix)
        distances = ((matrix[:, None, :] - self.means) ** 2 / self.variances).sum(axis=2)
        joint: Matrix = self._log_prior + (self._log_scale - 0.5 * distances)
        return joint


@dataclass
class CountBayes(Bayes):
    """Multinomial, complement and Bernoulli: a product with the columns' log-probabilities."""

    weights: Matrix
    """Shape `(n_classes, n_columns)`: the columns' log-probabilities by class."""
    log_prior: npt.NDArray[Any] | None
    classes: npt.NDArray[Any]

    def joint(self, data: Data) -> Matrix:
        """Returns the joint log-likelihood."""
        matrix = as_factor(data)
        check_finite(matrix)
        product: Matrix = matrix @ self.weights.T
        return product if self.log_prior is None else product + self.log_prior


@dataclass
class BernoulliBayes(Bayes):
    """Each column is present or absent."""

    log_probabilities: Matrix
    """Shape `(n_classes, n_columns)`."""
    log_prior: npt.NDArray[Any]
    threshold: float | None
    """A column above it is present; None if the columns are already 0 and 1."""
    classes: npt.NDArray[Any]

    _weights: Matrix = field(init=False, repr=False)
    _constant: npt.NDArray[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        absent = np.log(1 - np.exp(self.log_probabilities))
        self._weights = (self.log_probabilities - absent).T
        self._constant = self.log_prior + absent.sum(axis=1)

    def joint(self, data: Data) -> Matrix:
        """Returns the joint log-likelihood.

        Source: sklearn.naive_bayes.BernoulliNB._joint_log_likelihood.
        """
        matrix = as_factor(data)
        check_finite(matrix)
        if self.threshold is not None:
            matrix = _above(matrix, self.threshold)
        joint: Matrix = matrix @ self._weights
        joint += self._constant
        return joint


def _above(matrix: Matrix | Sparse, threshold: float) -> Matrix | Sparse:
    if isinstance(matrix, Sparse):  # zeros are below, or the fit would have failed
        return matrix.with_values((matrix.values > threshold).astype(matrix.dtype))
    return (matrix > threshold).astype(matrix.dtype)


@dataclass
class CategoricalBayes(Bayes):
    """Each column is a category's number."""

    log_probabilities: list[Matrix]
    """For each column, shape `(n_classes, n_categories)`."""
    log_prior: npt.NDArray[Any]
    classes: npt.NDArray[Any]

    _table: Matrix = field(init=False, repr=False)
    _starts: npt.NDArray[np.int64] = field(init=False, repr=False)
    _sizes: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._table = np.concatenate([column.T for column in self.log_probabilities])
        self._sizes = np.array([column.shape[1] for column in self.log_probabilities])
        self._starts = np.cumsum(self._sizes) - self._sizes

    def joint(self, data: Data) -> Matrix:
        """Returns the joint log-likelihood.

        Raises:
            ValueError: a number is negative.
            IndexError: a number is larger than in the fit; as in the original.
        """
        matrix = as_validated(data)
        check_finite(matrix)
        # Source: scikit-learn, CategoricalNB._check_X: 1.7 is category 1.
        codes = matrix.astype(np.int64)
        if (codes < 0).any():
            raise ValueError("a category's number is negative")
        if codes.shape[1] != len(self._sizes):
            raise ValueError("the number of columns differs from the fit")
        if (codes >= self._sizes).any():
            raise IndexError("a category's number is larger than in the fit")
        joint: Matrix = self._table[codes + self._starts].sum(axis=1) + self.log_prior
        return joint


@dataclass
class QuadraticDiscriminant(Predictor):
    """A normal distribution with its own covariance per class."""

    means: Matrix
    """Shape `(n_classes, n_columns)`."""
    rotations: list[Matrix]
    """For each class, shape `(rank, n_columns)`: the transposed rotation, as in memory."""
    scalings: list[npt.NDArray[Any]]
    """For each class, shape `(rank,)`: the variances along the rotated axes."""
    prior: npt.NDArray[Any]
    classes: npt.NDArray[Any]

    _whiten: list[Matrix] = field(init=False, repr=False)
    _log_scale: npt.NDArray[Any] = field(init=False, repr=False)
    _log_prior: npt.NDArray[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = zip(self.rotations, self.scalings, strict=True)
        self._whiten = [rotation.T * (scaling ** (-0.5)) for rotation, scaling in pairs]
        self._log_scale = np.asarray([np.sum(np.log(scaling)) for scaling in self.scalings])
        self._log_prior = np.log(self.prior)

    def _scores(self, data: Data) -> Matrix:
        # Source: scikit-learn, QuadraticDiscriminantAnalysis._decision_function.
        matrix = as_validated(data)
        check_finite(matrix)
        distances = [
            np.sum(np.dot(matrix - mean, whiten) ** 2, axis=1)
            for mean, whiten in zip(self.means, self._whiten, strict=True)
        ]
        scores: Matrix = -0.5 * (np.array(distances).T + self._log_scale) + self._log_prior
        return scores

    def output(self, data: Data) -> Output:
        """Returns the most probable labels and the normalised likelihoods."""
        scores = self._scores(data)
        likelihood = scores - scores.max(axis=1)[:, None]
        probabilities = np.exp(likelihood - np.log(np.exp(likelihood).sum(axis=1)[:, None]))
        return Output(labels=self.classes.take(scores.argmax(axis=1)), probabilities=probabilities)

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the log-likelihoods; for two classes, their difference."""
        scores = self._scores(data)
        return scores[:, 1] - scores[:, 0] if len(self.classes) == 2 else scores


@compiles_predictor("sklearn.GaussianNB")
def compile_gaussian(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # the sample does not matter
    """Compiles GaussianNB."""
    if not ((fitted.class_prior_ > 0).all() and np.isfinite(fitted.theta_).all() and (fitted.var_ > 0).all()):
        raise NotCompiled("a class has no weight, or a column no variance")
    return GaussianBayes(fitted.theta_, fitted.var_, fitted.class_prior_, fitted.classes_)


@compiles_predictor("sklearn.MultinomialNB")
def compile_multinomial(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles MultinomialNB."""
    return CountBayes(_finite(fitted.feature_log_prob_), fitted.class_log_prior_, fitted.classes_)


@compiles_predictor("sklearn.ComplementNB")
def compile_complement(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles ComplementNB, where the prior matters only for a single class."""
    prior = fitted.class_log_prior_ if len(fitted.classes_) == 1 else None
    return CountBayes(_finite(fitted.feature_log_prob_), prior, fitted.classes_)


@compiles_predictor("sklearn.BernoulliNB")
def compile_bernoulli(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles BernoulliNB."""
    logs = _finite(fitted.feature_log_prob_)
    if (logs >= 0).any():
        raise NotCompiled("a column is certain in one of the classes")
    return BernoulliBayes(logs, fitted.class_log_prior_, fitted.binarize, fitted.classes_)


@compiles_predictor("sklearn.CategoricalNB")
def compile_categorical(fitted: Any, sample: Data) -> Predictor:
    """Compiles CategoricalNB on numbers."""
    if isinstance(sample, Columns) and any(map(is_text, sample.arrays)):
        raise NotCompiled("a column of categories is not a number")
    return CategoricalBayes(list(fitted.feature_log_prob_), fitted.class_log_prior_, fitted.classes_)


@compiles_predictor("sklearn.QuadraticDiscriminantAnalysis")
def compile_quadratic_discriminant(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles QuadraticDiscriminantAnalysis."""
    rotations = [rotation.T for rotation in fitted.rotations_]
    return QuadraticDiscriminant(
        fitted.means_, rotations, list(fitted.scalings_), fitted.priors_, fitted.classes_
    )


def _finite(logs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.isfinite(logs).all():
        raise NotCompiled("a column never occurs in one of the classes, and is not smoothed")
    return logs
