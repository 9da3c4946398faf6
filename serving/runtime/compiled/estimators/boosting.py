"""scikit-learn's GradientBoosting and AdaBoost."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, NotCompiled, as_validated, check_finite
from serving.runtime.compiled.estimators.forests import as_float32, check_tree_input, to_tree
from serving.runtime.compiled.estimators.leaves import LeafFinder, LeafSum, compile_leaves
from serving.runtime.compiled.links import expit, softmax, two_columns
from serving.runtime.compiled.nodes import Node, Predictor, compile_predictor, compiles_predictor, type_name


@dataclass
class GradientBoostedClassifier(Predictor):
    """GradientBoostingClassifier."""

    trees: LeafSum
    classes: npt.NDArray[Any]
    scale: float
    """Factor of a binary raw prediction before the sigmoid: 1, or 2 for the exponential loss."""

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities."""
        raw = self.decision(data)
        if raw.ndim == 1:
            return Output(
                labels=self.classes[(raw >= 0).astype(np.intp)],
                probabilities=two_columns(expit(self.scale * raw)),
            )
        return Output(labels=self.classes.take(raw.argmax(axis=1)), probabilities=softmax(raw))

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the raw predictions, shape `(n_rows,)`, or `(n_rows, n_classes)` for more than two classes."""
        # The classifier itself rejects NaN, its trees would not.
        raw = self.trees.sum(as_float32(data, allow_nan=False))
        return np.ascontiguousarray(raw.T)


@dataclass
class GradientBoostedRegressor(Predictor):
    """GradientBoostingRegressor."""

    trees: LeafSum

    def output(self, data: Data) -> Output:
        """Returns values."""
        return Output(values=self.trees.sum(as_float32(data, allow_nan=False)))


@compiles_predictor("sklearn.GradientBoostingClassifier", "sklearn.GradientBoostingRegressor")
def compile_gradient_boosting(fitted: Any, sample: Data) -> Predictor:
    """Compiles gradient boosting that starts from zero or from a constant."""
    check_tree_input(fitted, sample)
    stages = fitted.estimators_
    trees = [to_tree(estimator) for estimator in stages.ravel()]
    values = [
        # Source: sklearn/ensemble/_gradient_boosting.pyx, `out[i, k] += scale * value[...]`.
        fitted.learning_rate * estimator.tree_.value[tree.leaves, 0, 0]
        for estimator, tree in zip(stages.ravel(), trees, strict=True)
    ]
    # Sums start from the constant, so it goes into the first trees' leaves.
    for group, start in enumerate(_start(fitted)):
        values[group] = start + values[group]
    finder = compile_leaves(trees, fitted.n_features_in_)
    total = LeafSum(finder, np.concatenate(values), stages.shape[1])
    if not hasattr(fitted, "classes_"):
        return GradientBoostedRegressor(total)
    return GradientBoostedClassifier(total, fitted.classes_, 2.0 if fitted.loss == "exponential" else 1.0)


def _start(fitted: Any) -> npt.NDArray[np.float64]:
    """The raw predictions before the first tree, shape `(n_trees_per_iteration,)`."""
    if isinstance(fitted.init_, str):
        return np.zeros(fitted.n_trees_per_iteration_)
    if type_name(fitted.init_) not in ("sklearn.DummyClassifier", "sklearn.DummyRegressor"):
        raise NotCompiled("its init is an estimator")
    if fitted.init_.strategy == "stratified":
        raise NotCompiled("its init is random")
    row = np.zeros((1, fitted.n_features_in_), dtype=np.float32)
    start: npt.NDArray[np.float64] = fitted._raw_predict_init(row)[0]  # noqa: SLF001  # no public attribute has it
    return start


@dataclass
class TreeVotes(Node):
    """Weighted votes of AdaBoost's trees."""

    trees: LeafSum

    def votes(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns shape `(n_rows, n_classes)`."""
        # The ensemble has rejected NaN.
        return self.trees.sum(as_float32(matrix, allow_nan=True))


@dataclass
class MemberVotes(Node):
    """Votes of AdaBoost's other members."""

    members: list[Predictor]
    weights: npt.NDArray[np.float64]
    classes: npt.NDArray[Any]

    def votes(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns shape `(n_rows, n_classes)`."""
        total: npt.NDArray[Any] = sum(  # type: ignore[assignment]
            _votes(member.output(matrix).labels, self.classes, weight)
            for member, weight in zip(self.members, self.weights.tolist(), strict=True)
        )
        return total


def _votes(labels: Any, classes: npt.NDArray[Any], weight: float) -> npt.NDArray[np.float64]:
    """Source: sklearn/ensemble/_weight_boosting.py, AdaBoostClassifier.decision_function."""
    return np.where((labels == classes[:, np.newaxis]).T, weight, -1 / (len(classes) - 1) * weight)


@dataclass
class AdaBoostClassifier(Predictor):
    """AdaBoostClassifier."""

    voters: TreeVotes | MemberVotes
    total_weight: float
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities."""
        decision = self.decision(data)
        if decision.ndim == 1:
            labels = self.classes[(decision > 0).astype(np.intp)]
            both = np.vstack([-decision, decision]).T / 2
            return Output(labels=labels, probabilities=softmax(both))
        labels = self.classes.take(decision.argmax(axis=1))
        return Output(labels=labels, probabilities=softmax(decision / (len(self.classes) - 1)))

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns shape `(n_rows,)` for two classes, `(n_rows, n_classes)` for more."""
        matrix = as_validated(data)
        check_finite(matrix)
        # Column-major, as in scikit-learn: sums of many classes depend on it.
        votes = np.asfortranarray(self.voters.votes(matrix))
        votes /= self.total_weight
        if len(self.classes) == 2:
            return votes[:, 1] - votes[:, 0]  # type: ignore[no-any-return]
        return votes


@dataclass
class TreeValues(Node):
    """Predictions of each of AdaBoost's trees."""

    finder: LeafFinder
    values: npt.NDArray[np.float64]

    def predictions(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Returns shape `(n_rows, n_members)`."""
        leaves = self.finder.find(as_float32(matrix, allow_nan=True))
        return self.values.take(leaves).T


@dataclass
class MemberValues(Node):
    """Predictions of each of AdaBoost's other members."""

    members: list[Predictor]

    def predictions(self, matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Returns shape `(n_rows, n_members)`."""
        return np.array([member.output(matrix).values for member in self.members]).T


@dataclass
class AdaBoostRegressor(Predictor):
    """AdaBoostRegressor: the weighted median of its members' predictions."""

    members: TreeValues | MemberValues
    weights: npt.NDArray[np.float64]

    def output(self, data: Data) -> Output:
        """Returns values."""
        matrix = as_validated(data)
        check_finite(matrix)
        predictions = self.members.predictions(matrix)
        # Source: sklearn/ensemble/_weight_boosting.py, AdaBoostRegressor._get_median_predict.
        order = np.argsort(predictions, axis=1)
        weights = np.cumsum(self.weights[order], axis=1)
        median = (weights >= 0.5 * weights[:, -1:]).argmax(axis=1)
        rows = np.arange(len(predictions))
        return Output(values=predictions[rows, order[rows, median]])


@compiles_predictor("sklearn.AdaBoostClassifier")
def compile_adaboost_classifier(fitted: Any, sample: Data) -> Predictor:
    """Compiles AdaBoost over decision trees, or any estimators with a compiled form."""
    check_tree_input(fitted, sample)
    classes, estimators = fitted.classes_, fitted.estimators_
    if len(classes) < 2:
        raise NotCompiled("it has only one class")
    weights = np.asarray(fitted.estimator_weights_, dtype=np.float64)
    voters: TreeVotes | MemberVotes
    if all(type_name(one) == "sklearn.DecisionTreeClassifier" for one in estimators):
        trees = [to_tree(one) for one in estimators]
        values = [
            _votes(one.classes_.take(one.tree_.value[tree.leaves, 0].argmax(axis=1)), classes, weight)
            for one, tree, weight in zip(estimators, trees, weights.tolist(), strict=False)
        ]
        finder = compile_leaves(trees, fitted.n_features_in_)
        voters = TreeVotes(LeafSum(finder, np.concatenate(values)))
    else:
        members = _members(estimators, sample)
        voters = MemberVotes(members, weights[: len(members)], classes)
    return AdaBoostClassifier(voters, float(weights.sum()), classes)


@compiles_predictor("sklearn.AdaBoostRegressor")
def compile_adaboost_regressor(fitted: Any, sample: Data) -> Predictor:
    """Compiles AdaBoost over decision trees, or any estimators with a compiled form."""
    check_tree_input(fitted, sample)
    estimators = fitted.estimators_
    members: TreeValues | MemberValues
    if all(type_name(one) == "sklearn.DecisionTreeRegressor" for one in estimators):
        trees = [to_tree(one) for one in estimators]
        values = [one.tree_.value[tree.leaves, 0, 0] for one, tree in zip(estimators, trees, strict=True)]
        finder = compile_leaves(trees, fitted.n_features_in_)
        members = TreeValues(finder, np.concatenate(values))
    else:
        members = MemberValues(_members(estimators, sample))
    return AdaBoostRegressor(members, np.asarray(fitted.estimator_weights_, dtype=np.float64))


def _members(estimators: list[Any], sample: Data) -> list[Predictor]:
    """Compiles members on the matrix, as they were fitted."""
    matrix = as_validated(sample)
    return [compile_predictor(one, matrix) for one in estimators]
