"""XGBoost's trees: the scikit-learn interface and the Booster of the learning API."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.categories import xgboost_categories
from serving.runtime.compiled.data import Columns, Data, NotCompiled, count_columns, filled, is_text
from serving.runtime.compiled.estimators.categories import (
    CodedColumns,
    SetCollector,
    SetColumns,
    code_columns,
)
from serving.runtime.compiled.estimators.leaves import LeafSum, Tree, compile_leaves
from serving.runtime.compiled.links import expit, probability_output
from serving.runtime.compiled.nodes import Node, Predictor, compiles_predictor

Floats = npt.NDArray[np.float32]

TRANSFORMS = {
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "binary:logitraw": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "rank:pairwise": "identity",
    "reg:logistic": "sigmoid",
    "binary:logistic": "sigmoid",
    "binary:hinge": "step",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "multi:softprob": "softmax",
    "multi:softmax": "argmax",
}
"""Output transformation by objective.

Source: XGBoost, src/objective/*.cc, `PredTransform`."""


@dataclass
class XgboostTrees(Node):
    """The predictions of a Booster."""

    trees: LeafSum
    missing: float
    """The number that means missing, besides NaN."""
    refuses_infinity: bool
    """A DMatrix does; predictions in place do not."""
    transform: str
    coded: CodedColumns | None
    sets: SetColumns

    def margins(self, data: Data) -> Floats:
        """Returns shape `(n_rows,)`, or `(n_rows, n_classes)` for more than two classes.

        Raises:
            ValueError: a column holds text, or a number is infinite and that is not allowed.
        """
        matrix = _matrix(data if self.coded is None else self.coded.encode(data))
        if self.missing == self.missing:  # anything but NaN
            matrix[matrix == np.float32(self.missing)] = np.nan
        if self.refuses_infinity and np.isinf(matrix).any():
            raise ValueError("Input data contains `inf` or a value too large")
        return np.ascontiguousarray(self.trees.sum(self.sets.append(matrix)).T)

    def predict(self, data: Data) -> Floats:
        """Returns probabilities or values of the same shape; for multi:softmax, classes of shape `(n_rows,)`."""
        margins = self.margins(data)
        if self.transform == "identity":
            return margins
        if self.transform == "sigmoid":
            # Source: xgboost, src/common/math.h, Sigmoid.
            probabilities: Floats = expit(np.maximum(margins, np.float32(-88.7)))
            return probabilities
        if self.transform == "exp":
            return _exp(margins)
        if self.transform == "step":
            return (margins > 0).astype(np.float32)
        if self.transform == "argmax":
            classes: Floats = margins.argmax(axis=1).astype(np.float32)
            return classes
        # Source: xgboost, src/common/math.h, Softmax: it sums in float64, from left to right.
        out: Floats = _exp(margins - margins.max(axis=1, keepdims=True))
        out /= np.add.accumulate(out, axis=1, dtype=np.float64)[:, -1:].astype(np.float32)
        return out


def _exp(x: Floats) -> Floats:
    """The C library's expf, as in XGBoost: NumPy's own differs in the last bit, except for complex numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        out: Floats = np.exp(x.astype(np.complex64)).real
        return out


def _matrix(data: Data) -> Floats:
    """Converts each column to float32."""
    with np.errstate(over="ignore"):
        if not isinstance(data, Columns):
            return filled(data).astype(np.float32)
        out = np.empty((len(data.arrays[0]), len(data.arrays)), dtype=np.float32)
        for position, array in enumerate(data.arrays):
            if is_text(array):
                raise ValueError("DataFrame.dtypes for data must be int, float, bool or category")
            out[:, position] = array
        return out


@dataclass
class XgboostClassifier(Predictor):
    """XGBClassifier, XGBRFClassifier."""

    trees: XgboostTrees
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities.

        Source: xgboost/sklearn.py, XGBClassifier.predict and predict_proba.
        """
        if self.trees.transform == "argmax":
            margins = self.trees.margins(data)
            exp = np.exp(margins - margins.max(axis=1, keepdims=True))
            labels = margins.argmax(axis=1).astype(np.int32)
            return Output(labels=labels, probabilities=exp / exp.sum(axis=1, keepdims=True))
        return probability_output(self.trees.predict(data))


@dataclass
class XgboostRegressor(Predictor):
    """XGBRegressor, XGBRFRegressor, XGBRanker, and a Booster without probabilities."""

    trees: XgboostTrees

    def output(self, data: Data) -> Output:
        """Returns values."""
        return Output(values=self.trees.predict(data))


@compiles_predictor("xgboost.XGBClassifier", "xgboost.XGBRFClassifier")
def compile_xgboost_classifier(fitted: Any, sample: Data) -> Predictor:
    """Compiles a classifier of the scikit-learn interface."""
    if callable(fitted.objective):
        raise NotCompiled("its objective is a function")
    trees = _compile_estimator(fitted, sample)
    if (trees.transform == "argmax") != (fitted.objective == "multi:softmax"):
        raise NotCompiled("its objective differs from its booster's")
    return XgboostClassifier(trees, np.arange(fitted.n_classes_))


@compiles_predictor("xgboost.XGBRegressor", "xgboost.XGBRFRegressor", "xgboost.XGBRanker")
def compile_xgboost_regressor(fitted: Any, sample: Data) -> Predictor:
    """Compiles a regressor or a ranker of the scikit-learn interface."""
    return XgboostRegressor(_compile_estimator(fitted, sample))


@compiles_predictor("xgboost.Booster")
def compile_xgboost_booster(fitted: Any, sample: Data) -> Predictor:
    """Compiles a Booster, which predicts with all its trees."""
    names = [_feature_name(label) for label in sample.names] if isinstance(sample, Columns) else None
    if fitted.feature_names is not None and fitted.feature_names != names:
        raise NotCompiled("it was fitted on other columns")
    model = _read_model(fitted)
    trees = _compile_trees(fitted, model, sample, None, in_place=False, missing=np.nan)
    if model["objective"]["name"] in ("binary:logistic", "multi:softprob"):
        return XgboostBooster(trees, np.arange(max(_n_groups(model), 2)))
    return XgboostRegressor(trees)


def _feature_name(label: Any) -> str:
    """Source: xgboost/data.py, pandas_feature_info."""
    return " ".join(map(str, label)) if isinstance(label, tuple) else str(label)


@dataclass
class XgboostBooster(Predictor):
    """A Booster that predicts probabilities."""

    trees: XgboostTrees
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities, as `serving.runtime.native` does."""
        return probability_output(self.trees.predict(data))


def _compile_estimator(fitted: Any, sample: Data) -> XgboostTrees:
    booster = fitted.get_booster()
    model = _read_model(booster)
    # Source: xgboost/sklearn.py, XGBModel._get_iteration_range.
    best = booster.attr("best_iteration")
    n_iterations = None if best is None else int(best) + 1
    return _compile_trees(booster, model, sample, n_iterations, in_place=True, missing=float(fitted.missing))


def _read_model(booster: Any) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))["learner"]
    return model


def _n_groups(model: dict[str, Any]) -> int:
    return max(int(model["learner_model_param"]["num_class"]), 1)


def _compile_trees(
    booster: Any,
    model: dict[str, Any],
    sample: Data,
    n_iterations: int | None,
    *,
    in_place: bool,
    missing: float,
) -> XgboostTrees:
    parameters, boosting = model["learner_model_param"], model["gradient_booster"]
    n_features = int(parameters["num_feature"])
    coded = _code_columns(booster, sample, n_features)
    transform = TRANSFORMS.get(model["objective"]["name"])
    if transform is None:
        raise NotCompiled(f"its objective is {model['objective']['name']}")
    if boosting["name"] not in ("gbtree", "dart"):
        raise NotCompiled(f"its booster is {boosting['name']}")
    forest = boosting.get("gbtree", boosting)["model"]
    if int(parameters["num_target"]) > 1:
        raise NotCompiled("it has several targets")
    stop = forest["iteration_indptr"][n_iterations] if n_iterations else len(forest["trees"])
    groups = np.array(forest["tree_info"][:stop], dtype=np.intp)
    n_groups = _n_groups(model)
    if stop % n_groups or (np.bincount(groups, minlength=n_groups) != stop // n_groups).any():
        raise NotCompiled("its classes have different numbers of trees")

    start = _base_margins(booster, n_features, n_groups)
    weights = np.array(boosting.get("weight_drop", [1.0] * stop), dtype=np.float32)
    sets = SetCollector(n_features, others_go_right=False)
    trees = [_to_tree(one, sets) for one in forest["trees"][:stop]]
    values = []
    for index, tree in enumerate(trees):
        value = np.array(forest["trees"][index]["split_conditions"], dtype=np.float32)[tree.leaves]
        if boosting["name"] == "dart":
            base = start[groups[index]]
            # Source: xgboost, src/gbm/gbtree.cc, Dart::InplacePredict: it predicts with each tree alone, and
            # subtracts the start value again.
            value = ((base + value) - base if in_place else value) * weights[index]
        values.append(value)
    # Trees belong to the classes in turn, and keep their order within a class.
    order = np.argsort(groups, kind="stable").reshape(n_groups, -1).T.ravel()
    # Sums start from the constant, so it goes into the first trees' leaves.
    for group in range(n_groups):
        values[order[group]] = start[group] + values[order[group]]
    finder = compile_leaves([trees[i] for i in order], sets.n_columns, strict=True)
    total = LeafSum(finder, np.concatenate([values[i] for i in order]), n_groups)
    return XgboostTrees(total, missing, not in_place, transform, coded, sets.columns(of_xgboost=True))


def _to_tree(tree: dict[str, Any], sets: SetCollector) -> Tree:
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotCompiled("it has several values per leaf")
    features = np.array(tree["split_indices"], dtype=np.int64)
    thresholds = np.array(tree["split_conditions"], dtype=np.float32)
    codes = np.array(tree["categories"], dtype=np.int64)
    parts = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    for node, start, size in parts:
        # Source: XGBoost, src/common/categorical.h, Decision: codes outside the set go left.
        goes_right = np.zeros(codes[start : start + size].max(initial=-1) + 1, dtype=bool)
        goes_right[codes[start : start + size]] = True
        features[node] = sets.column(int(features[node]), goes_right)
        thresholds[node] = 0.5
    return Tree(
        features,
        thresholds,
        np.array(tree["left_children"], dtype=np.int64),
        np.array(tree["right_children"], dtype=np.int64),
        np.array(tree["default_left"], dtype=bool),
    )


def _code_columns(booster: Any, sample: Data, n_features: int) -> CodedColumns | None:
    n_columns = count_columns(sample)
    if n_columns != n_features:
        raise NotCompiled("it was fitted on another number of columns")
    if not isinstance(sample, Columns):
        return None  # an array already has the codes
    return code_columns(xgboost_categories(booster, [array.dtype.kind for array in sample.arrays]), sample)


def _base_margins(booster: Any, n_features: int, n_groups: int) -> Floats:
    """Start values of the sums, shape `(n_groups,)`: the margins of the same booster with zero leaves."""
    import xgboost

    document = json.loads(bytes(booster.save_raw("json")))
    boosting = document["learner"]["gradient_booster"]
    for tree in boosting.get("gbtree", boosting)["model"]["trees"]:
        tree["split_conditions"] = [0.0] * len(tree["split_conditions"])
    zero = xgboost.Booster(model_file=bytearray(json.dumps(document).encode()))
    row = xgboost.DMatrix(np.zeros((1, n_features), dtype=np.float32))
    return zero.predict(row, output_margin=True, validate_features=False).reshape(n_groups)
