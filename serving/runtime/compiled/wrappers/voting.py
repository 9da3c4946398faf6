"""Ensembles: voting, stacking, bagging, one-vs-rest, one-vs-one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, Matrix, NotCompiled, as_matrix, as_validated, count_rows
from serving.runtime.compiled.nodes import Predictor, compile_predictor, compiles_predictor
from serving.runtime.compiled.wrappers.responses import (
    DECISION,
    PREDICT,
    PROBABILITIES,
    compile_part,
    first_method,
    require_classes,
    require_numbers,
    response,
)


@dataclass
class SoftVote(Predictor):
    """The weighted mean of the parts' probabilities."""

    parts: list[Predictor]
    weights: npt.NDArray[Any] | None
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns the most probable labels and the mean probabilities."""
        each = np.asarray([response(part, PROBABILITIES, data) for part in self.parts])
        mean = each.mean(axis=0) if self.weights is None else np.average(each, axis=0, weights=self.weights)
        return Output(labels=self.classes.take(mean.argmax(axis=1)), probabilities=mean)


@dataclass
class HardVote(Predictor):
    """The label with the most votes; the lowest of a tie."""

    parts: list[Predictor]
    """Their labels are positions in the classes."""
    weights: npt.NDArray[Any] | None
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels."""
        n_rows = count_rows(data)
        votes = np.zeros((n_rows, len(self.classes)))
        rows = np.arange(n_rows)
        for position, part in enumerate(self.parts):
            weight = 1.0 if self.weights is None else self.weights[position]
            votes[rows, response(part, PREDICT, data)] += weight
        return Output(labels=self.classes.take(votes.argmax(axis=1)))


@dataclass
class MeanVote(Predictor):
    """The weighted mean of the parts' values."""

    parts: list[Predictor]
    weights: npt.NDArray[Any] | None

    def output(self, data: Data) -> Output:
        """Returns the mean values."""
        each = np.asarray([response(part, PREDICT, data) for part in self.parts]).T
        return Output(values=np.average(each, axis=1, weights=self.weights))


@dataclass
class Stack(Predictor):
    """A final estimator whose columns are the parts' outputs."""

    parts: list[Predictor]
    methods: list[str]
    """The method called on each part."""
    last: Predictor
    """Its labels are positions in the classes."""
    keeps_input: bool
    """Whether the final estimator also gets the input."""
    classes: npt.NDArray[Any] | None
    """None for a regressor."""

    def output(self, data: Data) -> Output:
        """Returns the final estimator's output."""
        output = self.last.output(self.columns(data))
        if self.classes is None:
            return output
        assert output.labels is not None
        return Output(labels=self.classes.take(output.labels), probabilities=output.probabilities)

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the final estimator's decision function."""
        return self.last.decision(self.columns(data))

    def columns(self, data: Data) -> Matrix:
        """Returns the final estimator's input.

        Source: sklearn.ensemble._stacking._BaseStacking._concatenate_predictions.
        """
        blocks = []
        for part, method in zip(self.parts, self.methods, strict=True):
            block = response(part, method, data)
            if block.ndim == 1:
                block = block.reshape(-1, 1)
            elif method == PROBABILITIES and self.classes is not None and len(self.classes) == 2:
                block = block[:, 1:]
            blocks.append(block)
        if self.keeps_input:
            # NumPy makes the matrix from the frame here: column-major, and booleans become objects.
            blocks.append(np.asfortranarray(as_matrix(data)))
        return np.hstack(blocks)


@dataclass
class BaggedClassifier(Predictor):
    """The mean of the probabilities or votes of parts, each on some of the columns."""

    parts: list[Predictor]
    columns: list[npt.NDArray[np.int64]]
    known: list[npt.NDArray[np.int64] | None]
    """The positions of a part's classes; None if it has all of them."""
    votes: list[bool]
    """Whether a part lacks probabilities."""
    n_parts: int
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns the most probable labels and the mean probabilities.

        Source: sklearn.ensemble._bagging._parallel_predict_proba.
        """
        matrix = as_validated(data)
        total = np.zeros((len(matrix), len(self.classes)))
        rows = np.arange(len(matrix))
        for part, columns, known, is_vote in zip(
            self.parts, self.columns, self.known, self.votes, strict=True
        ):
            if is_vote:
                total[rows, response(part, PREDICT, matrix[:, columns])] += 1
            elif known is None:
                total += response(part, PROBABILITIES, matrix[:, columns])
            else:
                total[:, known] += response(part, PROBABILITIES, matrix[:, columns])
        mean = total / self.n_parts
        return Output(labels=self.classes.take(mean.argmax(axis=1)), probabilities=mean)

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the mean of the parts' decision functions."""
        return _mean(self.parts, self.columns, DECISION, as_validated(data), self.n_parts)


@dataclass
class BaggedRegressor(Predictor):
    """The mean of the values of parts, each on some of the columns."""

    parts: list[Predictor]
    columns: list[npt.NDArray[np.int64]]
    n_parts: int

    def output(self, data: Data) -> Output:
        """Returns the mean values."""
        return Output(values=_mean(self.parts, self.columns, PREDICT, as_validated(data), self.n_parts))


def _mean(
    parts: list[Predictor],
    columns: list[npt.NDArray[np.int64]],
    method: str,
    matrix: Matrix,
    n_parts: int,
) -> npt.NDArray[Any]:
    each = (response(part, method, matrix[:, own]) for part, own in zip(parts, columns, strict=True))
    out: npt.NDArray[Any] = sum(each) / n_parts  # type: ignore[assignment]  # at least one part
    return out


@dataclass
class OneVsRest(Predictor):
    """One part per class, which separates it from the rest; a single one for two classes."""

    parts: list[Predictor]
    method: str
    """The parts' scoring method."""
    threshold: float
    """Threshold of a single part's score."""
    has_probabilities: bool
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns the labels with the largest scores, and probabilities that sum to one."""
        scores = [_binary_score(part, self.method, data) for part in self.parts]
        if len(scores) == 1:
            picked = (scores[0] > self.threshold).astype(np.intp)
        else:
            picked = np.array(scores).argmax(axis=0)
        labels = self.classes.take(picked)
        if not self.has_probabilities:
            return Output(labels=labels)
        return Output(labels=labels, probabilities=self._probabilities(data))

    def _probabilities(self, data: Data) -> Matrix:
        # Source: scikit-learn, OneVsRestClassifier.predict_proba.
        out: Matrix = np.array([response(part, PROBABILITIES, data)[:, 1] for part in self.parts]).T
        if len(self.parts) == 1:
            out = np.concatenate(((1 - out), out), axis=1)
        total = np.sum(out, axis=1)[:, None]
        np.divide(out, total, out=out, where=total != 0)
        return out

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the parts' decision functions side by side."""
        each = [part.decision(data) for part in self.parts]
        return each[0] if len(each) == 1 else np.array([one.ravel() for one in each]).T


@dataclass
class OneVsOne(Predictor):
    """One part per pair of classes; each votes, and the sum of the scores breaks ties."""

    parts: list[Predictor]
    """Their labels are 0 and 1: first and second class of the pair."""
    method: str
    threshold: float
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns the labels with the most votes."""
        scores = self.decision(data)
        picked = (scores > self.threshold).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return Output(labels=self.classes.take(picked))

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns votes plus scores between -1/3 and 1/3; for two classes, those of the second.

        Source: sklearn.utils.multiclass._ovr_decision_function.
        """
        matrix = as_validated(data)
        n_classes = len(self.classes)
        votes = np.zeros((len(matrix), n_classes))
        sums = np.zeros((len(matrix), n_classes))
        pairs = ((i, j) for i in range(n_classes) for j in range(i + 1, n_classes))
        for (first, second), part in zip(pairs, self.parts, strict=True):
            label = response(part, PREDICT, matrix)
            score = _binary_score(part, self.method, matrix)
            sums[:, first] -= score
            sums[:, second] += score
            votes[label == 0, first] += 1
            votes[label == 1, second] += 1
        scores: npt.NDArray[Any] = votes + sums / (3 * (np.abs(sums) + 1))
        return scores[:, 1] if n_classes == 2 else scores


def _binary_score(part: Predictor, method: str, data: Data) -> npt.NDArray[Any]:
    """Source: sklearn.multiclass._predict_binary."""
    scores = response(part, method, data)
    return scores[:, 1] if method == PROBABILITIES else scores.ravel()


@compiles_predictor("sklearn.VotingClassifier")
def compile_voting_classifier(fitted: Any, sample: Data) -> Predictor:
    """Compiles soft and hard voting."""
    classes = require_classes(fitted.classes_)
    positions = np.arange(len(classes))
    method = PROBABILITIES if fitted.voting == "soft" else PREDICT
    for part in fitted.estimators_:
        require_classes(part.classes_, positions)
    parts = [compile_part(part, method, sample) for part in fitted.estimators_]
    node = SoftVote if fitted.voting == "soft" else HardVote
    return node(parts, _weights(fitted), classes)


@compiles_predictor("sklearn.VotingRegressor")
def compile_voting_regressor(fitted: Any, sample: Data) -> Predictor:
    """Compiles the mean of regressors."""
    return MeanVote([compile_part(part, PREDICT, sample) for part in fitted.estimators_], _weights(fitted))


def _weights(fitted: Any) -> npt.NDArray[Any] | None:
    weights = fitted._weights_not_none  # noqa: SLF001  # without dropped estimators
    return None if weights is None else np.asarray(weights)


@compiles_predictor("sklearn.StackingClassifier")
def compile_stacking_classifier(fitted: Any, sample: Data) -> Predictor:
    """Compiles stacking of classifiers."""
    classes = require_classes(fitted.classes_)
    require_classes(fitted.final_estimator_.classes_, np.arange(len(classes)))
    return _stack(fitted, classes, sample)


@compiles_predictor("sklearn.StackingRegressor")
def compile_stacking_regressor(fitted: Any, sample: Data) -> Predictor:
    """Compiles stacking of regressors."""
    return _stack(fitted, None, sample)


def _stack(fitted: Any, classes: npt.NDArray[Any] | None, sample: Data) -> Stack:
    methods = list(fitted.stack_method_)
    pairs = zip(fitted.estimators_, methods, strict=True)
    parts = [compile_part(part, method, sample) for part, method in pairs]
    if fitted.passthrough:
        require_numbers(sample)
    node = Stack(parts, methods, parts[0], bool(fitted.passthrough), classes)
    columns = node.columns(sample)
    if columns.dtype.kind not in "biuf":
        raise NotCompiled("a part of the stack does not return numbers")
    node.last = compile_predictor(fitted.final_estimator_, columns)
    return node


@compiles_predictor("sklearn.BaggingClassifier")
def compile_bagging_classifier(fitted: Any, sample: Data) -> Predictor:
    """Compiles bagging of classifiers, whose parts' labels are positions in the classes."""
    classes = require_classes(fitted.classes_)
    matrix = require_numbers(sample)
    columns = [np.asarray(own, dtype=np.int64) for own in fitted.estimators_features_]
    methods = [first_method(part, PROBABILITIES, PREDICT) for part in fitted.estimators_]
    triples = zip(fitted.estimators_, methods, columns, strict=True)
    parts = [compile_part(part, method, matrix[:, own]) for part, method, own in triples]
    known = [
        None if len(part.classes_) == len(classes) else np.asarray(part.classes_, dtype=np.int64)
        for part in fitted.estimators_
    ]
    votes = [method == PREDICT for method in methods]
    return BaggedClassifier(parts, columns, known, votes, int(fitted.n_estimators), classes)


@compiles_predictor("sklearn.BaggingRegressor")
def compile_bagging_regressor(fitted: Any, sample: Data) -> Predictor:
    """Compiles bagging of regressors."""
    matrix = require_numbers(sample)
    columns = [np.asarray(own, dtype=np.int64) for own in fitted.estimators_features_]
    pairs = zip(fitted.estimators_, columns, strict=True)
    parts = [compile_part(part, PREDICT, matrix[:, own]) for part, own in pairs]
    return BaggedRegressor(parts, columns, int(fitted.n_estimators))


@compiles_predictor("sklearn.OneVsRestClassifier")
def compile_one_vs_rest(fitted: Any, sample: Data) -> Predictor:
    """Compiles OneVsRestClassifier with one label per row."""
    if fitted.multilabel_:
        raise NotCompiled("it has several labels per row")
    classes = require_classes(fitted.classes_)
    method, threshold = _score_method(fitted)
    parts = [compile_part(part, method, sample) for part in fitted.estimators_]
    has_probabilities = hasattr(fitted, PROBABILITIES)
    if has_probabilities:
        for part in parts:
            response(part, PROBABILITIES, sample)
    return OneVsRest(parts, method, threshold, has_probabilities, classes)


@compiles_predictor("sklearn.OneVsOneClassifier")
def compile_one_vs_one(fitted: Any, sample: Data) -> Predictor:
    """Compiles OneVsOneClassifier."""
    if fitted.pairwise_indices_ is not None:
        raise NotCompiled("it takes distances instead of columns")
    classes = require_classes(fitted.classes_)
    method, threshold = _score_method(fitted)
    matrix = require_numbers(sample)
    parts = [compile_part(part, method, matrix) for part in fitted.estimators_]
    return OneVsOne(parts, method, threshold, classes)


def _score_method(fitted: Any) -> tuple[str, float]:
    """Returns the parts' scoring method and the threshold between two classes.

    Source: sklearn.multiclass._predict_binary and _threshold_for_binary_predict.
    """
    methods = {
        first_method(part, DECISION, PROBABILITIES) if hasattr(part, "classes_") else PREDICT
        for part in fitted.estimators_
    }
    if len(methods) != 1:
        raise NotCompiled("its parts are of several kinds")
    method = methods.pop()
    return method, 0.0 if method == DECISION else 0.5
