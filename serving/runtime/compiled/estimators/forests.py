"""Decision trees and forests: DecisionTree, ExtraTree, RandomForest, ExtraTrees."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import (
    Data,
    NotCompiled,
    as_validated,
    check_finite,
    count_columns,
)
from serving.runtime.compiled.estimators.leaves import LeafFinder, LeafSum, Tree, compile_leaves
from serving.runtime.compiled.nodes import Predictor, compiles_predictor


def as_float32(data: Data, *, allow_nan: bool) -> npt.NDArray[np.float32]:
    """Returns the input of scikit-learn's trees, shape `(n_rows, n_features)`.

    Raises:
        ValueError: a number is infinite in float32, or is NaN and that is not allowed.
    """
    matrix = as_validated(data)
    with np.errstate(over="ignore", invalid="ignore"):
        out = matrix.astype(np.float32, order="C")
        # A finite sum has finite terms; `check_finite` uses that too, but costs time for a single row.
        is_finite = math.isfinite(out.sum())
    if not is_finite:
        check_finite(out, allow_nan=allow_nan)
    return out


@dataclass
class ForestClassifier(Predictor):
    """The mean of the trees' probabilities; one tree is a forest too."""

    trees: LeafSum
    n_trees: int
    classes: npt.NDArray[Any]
    allow_nan: bool

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities."""
        probabilities = self.trees.sum(as_float32(data, allow_nan=self.allow_nan))
        probabilities /= self.n_trees
        return Output(labels=self.classes.take(probabilities.argmax(axis=1)), probabilities=probabilities)


@dataclass
class ForestRegressor(Predictor):
    """The mean of the trees' values."""

    trees: LeafSum
    n_trees: int
    allow_nan: bool

    def output(self, data: Data) -> Output:
        """Returns values."""
        values = self.trees.sum(as_float32(data, allow_nan=self.allow_nan))
        values /= self.n_trees
        return Output(values=values)


@dataclass
class SeveralTargets(Predictor):
    """A forest of several targets: the mean of the trees' values, or each target's most probable label."""

    trees: LeafSum
    n_trees: int
    classes_of: list[npt.NDArray[Any]] | None
    """Labels by target; a leaf has their probabilities side by side. None for a regressor."""
    dtype: str
    """Dtype of the labels: that of the first target in the fit, which has room for all text."""
    allow_nan: bool

    def output(self, data: Data) -> Output:
        """Returns values or labels, shape `(n_rows, n_targets)`."""
        mean = self.trees.sum(as_float32(data, allow_nan=self.allow_nan))
        mean /= self.n_trees
        if self.classes_of is None:
            return Output(values=mean)
        labels = np.empty((len(mean), len(self.classes_of)), dtype=self.dtype)
        start = 0
        for target, classes in enumerate(self.classes_of):
            stop = start + len(classes)
            labels[:, target] = classes.take(mean[:, start:stop].argmax(axis=1))
            start = stop
        return Output(labels=labels)


def to_tree(fitted: Any) -> Tree:
    """Returns the nodes of a fitted decision tree."""
    tree = fitted.tree_
    return Tree(
        tree.feature,
        tree.threshold,
        tree.children_left,
        tree.children_right,
        tree.missing_go_to_left.astype(bool),
    )


def check_tree_input(fitted: Any, sample: Data) -> None:
    """Checks that the sample has as many columns as the fit.

    Raises:
        NotCompiled: it does not.
    """
    n_columns = count_columns(sample)
    if n_columns != fitted.n_features_in_:
        raise NotCompiled("it was fitted on another number of columns")


@compiles_predictor(
    "sklearn.DecisionTreeClassifier",
    "sklearn.DecisionTreeRegressor",
    "sklearn.ExtraTreeClassifier",
    "sklearn.ExtraTreeRegressor",
)
def compile_tree(fitted: Any, sample: Data) -> Predictor:
    """Compiles a single decision tree."""
    return _compile([fitted], fitted, sample)


@compiles_predictor(
    "sklearn.RandomForestClassifier",
    "sklearn.RandomForestRegressor",
    "sklearn.ExtraTreesClassifier",
    "sklearn.ExtraTreesRegressor",
)
def compile_forest(fitted: Any, sample: Data) -> Predictor:
    """Compiles a forest."""
    return _compile(fitted.estimators_, fitted, sample)


def _compile(estimators: list[Any], fitted: Any, sample: Data) -> Predictor:
    check_tree_input(fitted, sample)
    trees = [to_tree(estimator) for estimator in estimators]
    finder = compile_leaves(trees, fitted.n_features_in_)
    allow_nan = bool(estimators[0].__sklearn_tags__().input_tags.allow_nan)
    if fitted.n_outputs_ != 1:
        return _several_targets(estimators, fitted, trees, finder, allow_nan=allow_nan)
    # `predict_proba` of a tree is its `value`: fractions since scikit-learn 1.3, counts before.
    values = np.concatenate(
        [one.tree_.value[tree.leaves, 0] for one, tree in zip(estimators, trees, strict=True)]
    )
    if not hasattr(fitted, "classes_"):
        return ForestRegressor(LeafSum(finder, values[:, 0].copy()), len(trees), allow_nan)
    return ForestClassifier(LeafSum(finder, values), len(trees), fitted.classes_, allow_nan)


def _several_targets(
    estimators: list[Any], fitted: Any, trees: list[Tree], finder: LeafFinder, *, allow_nan: bool
) -> Predictor:
    """A classifier's leaves have, for each target, as many columns as the largest target has classes."""
    nodes = [one.tree_.value[tree.leaves] for one, tree in zip(estimators, trees, strict=True)]
    values = np.concatenate(nodes)
    if not hasattr(fitted, "classes_"):
        return SeveralTargets(LeafSum(finder, values[:, :, 0].copy()), len(trees), None, "", allow_nan)
    classes = [np.asarray(own) for own in fitted.classes_]
    blocks = [values[:, target, : len(own)] for target, own in enumerate(classes)]
    total = LeafSum(finder, np.concatenate(blocks, axis=1))
    # Source: sklearn.ensemble.ForestClassifier.predict.
    return SeveralTargets(total, len(trees), classes, classes[0].dtype.str, allow_nan)
