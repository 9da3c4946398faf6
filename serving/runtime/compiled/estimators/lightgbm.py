"""LightGBM's trees: the scikit-learn interface and the Booster of the training API."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.categories import lightgbm_categories
from serving.runtime.compiled.data import Columns, Data, NotCompiled, as_matrix, count_columns, is_text
from serving.runtime.compiled.estimators.categories import (
    CodedColumns,
    SetCollector,
    SetColumns,
    code_columns,
    column_kind,
)
from serving.runtime.compiled.estimators.leaves import LeafSum, Tree, compile_leaves
from serving.runtime.compiled.links import expit, probability_output, two_columns
from serving.runtime.compiled.nodes import Node, Predictor, compiles_predictor

Floats = npt.NDArray[np.floating[Any]]

ZERO = float(np.float32(1e-35))
"""LightGBM treats numbers up to this size as zero. Source: LightGBM, include/LightGBM/meta.h, kZeroThreshold."""

TRANSFORMS = {
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "lambdarank": "identity",
    "rank_xendcg": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
}
"""Output transformation by objective. Source: LightGBM, src/objective/*.hpp, `ConvertOutput`."""

NO_MISSING, ZERO_IS_MISSING, NAN_IS_MISSING = range(3)
"""A node's missing value. Source: LightGBM, include/LightGBM/bin.h, MissingType."""


@dataclass
class LightgbmTrees(Node):
    """The predictions of a Booster."""

    trees: LeafSum
    n_columns: int
    zeros: list[int]
    """Columns in which zero is a missing value."""
    rounds_to_zero: bool
    """Whether very small numbers must become zeros."""
    coded: CodedColumns | None
    sets: SetColumns
    n_averaged: int
    """Divisor of a random forest; 0 for a sum of trees."""
    transform: str
    sigmoid: float
    """Factor in the sigmoid's exponent."""

    def raw(self, data: Data) -> Floats:
        """Returns the raw scores, shape `(n_rows,)`, or `(n_rows, n_classes)` for more than two classes.

        Raises:
            ValueError: a column holds text.
        """
        if self.coded is not None:
            data = self.coded.encode(data)
        if isinstance(data, Columns) and any(is_text(array) for array in data.arrays):
            raise ValueError("pandas dtypes must be int, float or bool")
        raw = np.ascontiguousarray(self.trees.sum(self._matrix(as_matrix(data))).T)
        if self.n_averaged:
            raw /= self.n_averaged
        return raw

    def predict(self, data: Data) -> Floats:
        """Returns the raw scores after the objective's output transformation, same shape."""
        raw = self.raw(data)
        if self.transform == "identity":
            return raw
        if self.transform == "sigmoid":
            return expit(self.sigmoid * raw)
        if self.transform == "exp":
            return _exp(raw)
        if self.transform == "square":
            square: Floats = np.sign(raw) * raw * raw
            return square
        # Source: LightGBM, include/LightGBM/utils/common.h, Softmax: the sum goes from left to right.
        out = _exp(raw - raw.max(axis=1, keepdims=True))
        out /= np.add.accumulate(out, axis=1)[:, -1:]
        return out

    def _matrix(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        out = matrix.astype(np.float64, copy=False)
        if out.shape[1] != self.n_columns:
            raise ValueError(f"X has {out.shape[1]} features, but {self.n_columns} are expected")
        if self.rounds_to_zero:
            out = np.where(np.abs(out) <= ZERO, 0.0, out)
        if self.zeros:
            some = out[:, self.zeros]
            out = out.copy()
            out[:, self.zeros] = np.where(np.abs(some) <= ZERO, np.nan, some)
        return self.sets.append(out)


def _exp(x: Floats) -> Floats:
    """The C library's exp, as in LightGBM: NumPy's own differs in the last bit, except for complex numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        out: Floats = np.exp(x + 0j).real
        return out


@dataclass
class LightgbmClassifier(Predictor):
    """LGBMClassifier."""

    trees: LightgbmTrees
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities."""
        out = self.trees.predict(data)
        if out.ndim == 1:
            out = two_columns(out)
        return Output(labels=self.classes.take(out.argmax(axis=1)), probabilities=out)

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the raw scores."""
        return self.trees.raw(data)


@dataclass
class LightgbmBooster(Predictor):
    """A Booster that predicts probabilities."""

    trees: LightgbmTrees
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities, as `serving.runtime.native` does."""
        return probability_output(self.trees.predict(data))


@dataclass
class LightgbmRegressor(Predictor):
    """LGBMRegressor, LGBMRanker, and a Booster without probabilities."""

    trees: LightgbmTrees

    def output(self, data: Data) -> Output:
        """Returns values."""
        return Output(values=self.trees.predict(data))


@compiles_predictor("lightgbm.LGBMClassifier")
def compile_lightgbm_classifier(fitted: Any, sample: Data) -> Predictor:
    """Compiles a classifier of the scikit-learn interface."""
    trees, objective = _compile_estimator(fitted, sample)
    if objective not in ("binary", "multiclass", "multiclassova"):
        raise NotCompiled(f"its objective is {objective}")
    return LightgbmClassifier(trees, fitted.classes_)


@compiles_predictor("lightgbm.LGBMRegressor", "lightgbm.LGBMRanker")
def compile_lightgbm_regressor(fitted: Any, sample: Data) -> Predictor:
    """Compiles a regressor or a ranker of the scikit-learn interface."""
    return LightgbmRegressor(_compile_estimator(fitted, sample)[0])


@compiles_predictor("lightgbm.Booster")
def compile_lightgbm_booster(fitted: Any, sample: Data) -> Predictor:
    """Compiles a Booster."""
    trees, objective = _compile_trees(fitted, sample)
    if objective in ("binary", "multiclass", "multiclassova"):
        return LightgbmBooster(trees, np.arange(max(trees.trees.n_groups, 2)))
    return LightgbmRegressor(trees)


def _compile_estimator(fitted: Any, sample: Data) -> tuple[LightgbmTrees, str]:
    if callable(fitted.objective_):
        raise NotCompiled("its objective is a function")
    if any(name.startswith("pred") for name in fitted.get_params()):
        raise NotCompiled("it has prediction parameters, such as pred_early_stop")
    return _compile_trees(fitted.booster_, sample)


def _compile_trees(booster: Any, sample: Data) -> tuple[LightgbmTrees, str]:
    n_columns = count_columns(sample)
    # An array already has the codes.
    kinds = [column_kind(array) for array in sample.arrays] if isinstance(sample, Columns) else None
    coded = code_columns(lightgbm_categories(booster, kinds) if kinds else {}, sample)
    # Both this and `predict` stop at the best iteration, if any.
    header, *blocks = booster.model_to_string().partition("end of trees")[0].split("\nTree=")
    model = _read(header)
    if int(model["max_feature_idx"]) + 1 != n_columns:
        raise NotCompiled("it was fitted on another number of columns")
    objective, *options = model.get("objective", "none").split(" ")
    transform = TRANSFORMS.get(objective)
    if transform is None:
        raise NotCompiled(f"its objective is {objective}")
    if "sqrt" in options:
        transform = "square"
    sigmoid = next((float(one[8:]) for one in options if one.startswith("sigmoid:")), 1.0)

    n_groups = int(model["num_tree_per_iteration"])
    if n_groups != int(model["num_class"]):
        raise NotCompiled("it does not have one tree per class")
    parts = [_read(block) for block in blocks]
    if any(int(part.get("is_linear", "0")) for part in parts):
        raise NotCompiled("its leaves are linear models")
    splits = _Splits(n_columns)
    trees = [splits.tree(part) for part in parts]
    finder = compile_leaves(trees, splits.sets.n_columns, dtype=np.float64)
    values = np.concatenate([_floats(part["leaf_value"]) for part in parts])
    node = LightgbmTrees(
        LeafSum(finder, values, n_groups),
        n_columns,
        splits.zeros(),
        splits.rounds_to_zero,
        coded,
        splits.sets.columns(of_xgboost=False),
        len(trees) // n_groups if "average_output" in model else 0,
        transform,
        sigmoid,
    )
    return node, objective


def _read(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.splitlines())
    return {key: value for key, _, value in pairs}


def _floats(text: str) -> npt.NDArray[np.float64]:
    return np.array(text.split(), dtype=np.float64)


def _integers(text: str) -> npt.NDArray[np.int64]:
    return np.array(text.split(), dtype=np.int64)


class _Splits:
    """Collects the trees' splits while converting the trees."""

    def __init__(self, n_columns: int) -> None:
        self._missing: dict[int, set[int]] = {}
        self.sets = SetCollector(n_columns, others_go_right=True)
        self.rounds_to_zero = False

    def tree(self, part: dict[str, str]) -> Tree:
        """Source: LightGBM, include/LightGBM/tree.h, NumericalDecision and CategoricalDecision."""
        n_leaves = int(part["num_leaves"])
        if n_leaves == 1:
            nothing = np.full(1, -1)
            return Tree(nothing, np.zeros(1), nothing, nothing, np.zeros(1, dtype=bool))
        feature, threshold = _integers(part["split_feature"]), _floats(part["threshold"])
        decision = _integers(part["decision_type"])
        is_categorical, default_left, missing = decision & 1 > 0, decision & 2 > 0, decision >> 2 & 3
        numerical = ~is_categorical
        # Unless NaN is a missing value, it is zero.
        missing_left = np.where(missing == NO_MISSING, threshold >= 0, default_left) & numerical
        at_zero = (threshold >= -ZERO) & (threshold < ZERO) & numerical
        self.rounds_to_zero |= bool(at_zero.any())
        for index in np.flatnonzero(numerical).tolist():
            self._missing.setdefault(int(feature[index]), set()).add(int(missing[index]))
        if is_categorical.any():
            bounds, words = _integers(part["cat_boundaries"]), _integers(part["cat_threshold"])
            for index in np.flatnonzero(is_categorical).tolist():
                start, stop = bounds[int(threshold[index])], bounds[int(threshold[index]) + 1]
                goes_right = (words[start:stop, np.newaxis] >> np.arange(32) & 1 == 0).ravel()
                feature[index] = self.sets.column(int(feature[index]), goes_right)
                threshold[index] = 0.5
        # Inner nodes come first here, then leaves, which LightGBM numbers -1, -2, …
        leaves = np.full(n_leaves, -1)
        left, right = (_integers(part[f"{side}_child"]) for side in ("left", "right"))
        return Tree(
            np.concatenate([feature, leaves]),
            np.concatenate([threshold, np.zeros(n_leaves)]),
            np.concatenate([np.where(left < 0, n_leaves - 1 + ~left, left), leaves]),
            np.concatenate([np.where(right < 0, n_leaves - 1 + ~right, right), leaves]),
            np.concatenate([missing_left, np.zeros(n_leaves, dtype=bool)]),
        )

    def zeros(self) -> list[int]:
        """Returns the columns in which zero is a missing value.

        Raises:
            NotCompiled: nodes on one column disagree.
        """
        found = [feature for feature, kinds in self._missing.items() if ZERO_IS_MISSING in kinds]
        if any(len(self._missing[feature]) > 1 for feature in found):
            raise NotCompiled("its trees disagree on missing values")
        return sorted(found)
