"""Calibrated classifiers, and classifiers with a custom threshold."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, Matrix, NotCompiled, count_rows
from serving.runtime.compiled.links import expit, softmax, two_columns
from serving.runtime.compiled.nodes import Node, Predictor, compiles_predictor
from serving.runtime.compiled.wrappers.responses import (
    DECISION,
    PROBABILITIES,
    compile_part,
    first_method,
    require_classes,
    response,
)


class Calibrator(Node):
    """From one class's score to its probability."""

    def calibrate(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the probabilities, shape `(n_rows,)`."""
        raise NotImplementedError


@dataclass
class Sigmoid(Calibrator):
    """Platt's sigmoid."""

    slope: float
    offset: float

    def calibrate(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the probabilities, float64 even for float32 scores."""
        return expit(-(self.slope * scores.astype(np.float64, copy=False) + self.offset))


@dataclass
class Isotonic(Calibrator):
    """A nondecreasing line through points, constant outside them."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    low: float
    high: float

    def calibrate(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the probabilities.

        Raises:
            ValueError: a score is not finite.
        """
        if not np.isfinite(scores).all():
            raise ValueError("a score is not finite")
        scores = np.clip(scores.astype(self.x.dtype, copy=False), self.low, self.high)
        if len(self.x) == 1:
            return np.repeat(self.y, len(scores))
        # Source: scipy.interpolate.interp1d, which uses numpy.interp for float64 only.
        if self.x.dtype == np.float64:
            out: npt.NDArray[Any] = np.interp(scores, self.x, self.y)
            return out
        above = np.searchsorted(self.x, scores).clip(1, len(self.x) - 1)
        below = above - 1
        slope = (self.y[above] - self.y[below]) / (self.x[above] - self.x[below])
        line: npt.NDArray[Any] = slope * (scores - self.x[below]) + self.y[below]
        return line


@dataclass
class CalibratedPart(Node):
    """One fitted classifier with its calibrators."""

    part: Predictor
    method: str
    calibrators: list[Calibrator]
    """One for two classes, else one per class; none with a temperature."""
    inverse_temperature: npt.NDArray[Any] | None
    """A zero-dimensional array."""

    def probabilities(self, data: Data) -> Matrix:
        """Returns the probabilities, shape `(n_rows, n_classes)`.

        Source: sklearn.calibration._CalibratedClassifier.predict_proba.
        """
        scores = response(self.part, self.method, data)
        if self.method == PROBABILITIES and scores.shape[1] == 2:
            scores = scores[:, 1]
        if self.inverse_temperature is not None:
            out = softmax(self.inverse_temperature * self._logits(scores))
        elif scores.ndim == 1:
            out = two_columns(self.calibrators[0].calibrate(scores).astype(np.float64, copy=False))
        else:
            out = self._one_vs_rest(scores)
        return np.minimum(out, 1.0)

    def _one_vs_rest(self, scores: npt.NDArray[Any]) -> Matrix:
        out = np.empty((len(scores), len(self.calibrators)))
        for position, calibrator in enumerate(self.calibrators):
            out[:, position] = calibrator.calibrate(scores[:, position])
        total = out.sum(axis=1)[:, None]
        uniform = np.full_like(out, 1 / len(self.calibrators))
        normalized: Matrix = np.divide(out, total, out=uniform, where=total != 0)
        return normalized

    def _logits(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Scores unchanged, probabilities as logarithms; both columns for two classes.

        Source: sklearn.calibration._convert_to_logits, which recognizes probabilities by the values of all rows.
        """
        if not np.isfinite(scores).all():
            raise ValueError("a score is not finite")
        if scores.ndim == 1:
            if self.method == DECISION:
                return np.stack([-scores, scores], axis=1)
            scores = two_columns(scores)
        if ((scores >= 0) & (scores <= 1)).all() and np.isclose(scores.sum(axis=1), 1.0).all():
            logits: npt.NDArray[Any] = np.log(scores + 1e-12)
            return logits
        return scores


@dataclass
class CalibratedClassifier(Predictor):
    """The mean of separately calibrated classifiers."""

    parts: list[CalibratedPart]
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns the most probable labels and the mean probabilities."""
        mean = np.zeros((count_rows(data), len(self.classes)))
        for part in self.parts:
            mean += part.probabilities(data)
        mean /= len(self.parts)
        return Output(labels=self.classes.take(mean.argmax(axis=1)), probabilities=mean)


@dataclass
class ThresholdClassifier(Predictor):
    """A classifier of two classes with a custom threshold."""

    part: Predictor
    method: str
    threshold: npt.NDArray[Any] | float
    """A zero-dimensional array if tuned, a Python number if given: that is rounded to float32 before a comparison
    with float32."""
    positive: int
    """Position of the class that the threshold is for."""
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels by the threshold, and the classifier's own probabilities."""
        probabilities = self.part.output(data).probabilities
        if self.method == DECISION:
            scores = self.part.decision(data)
            scores = scores if self.positive == 1 else -1 * scores
        else:
            assert probabilities is not None
            scores = probabilities[:, self.positive]
        is_positive = scores >= self.threshold
        labels = self.classes.take(np.where(is_positive, self.positive, 1 - self.positive))
        return Output(labels=labels, probabilities=probabilities)

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the classifier's own decision function."""
        return self.part.decision(data)


@compiles_predictor("sklearn.CalibratedClassifierCV")
def compile_calibrated_classifier(fitted: Any, sample: Data) -> Predictor:
    """Compiles calibration by sigmoid, isotonic regression or temperature."""
    classes = require_classes(fitted.classes_)
    parts = [_calibrated_part(one, classes, sample) for one in fitted.calibrated_classifiers_]
    return CalibratedClassifier(parts, classes)


def _calibrated_part(one: Any, classes: npt.NDArray[Any], sample: Data) -> CalibratedPart:
    # A temperature is fitted on positions in the classes, unless the estimator was already fitted.
    positions = np.arange(len(classes))
    if one.method != "temperature" or not np.array_equal(one.estimator.classes_, positions):
        require_classes(one.estimator.classes_, classes)
    method = first_method(one.estimator, DECISION, PROBABILITIES)
    part = compile_part(one.estimator, method, sample)
    if one.method == "temperature":
        return CalibratedPart(part, method, [], np.asarray(one.calibrators[0].beta_))
    calibrators = [_calibrator(calibrator) for calibrator in one.calibrators]
    if len(calibrators) != (1 if len(classes) == 2 else len(classes)):
        raise NotCompiled("it needs one calibrator per class")
    return CalibratedPart(part, method, calibrators, None)


def _calibrator(fitted: Any) -> Calibrator:
    if type(fitted).__name__ == "_SigmoidCalibration":
        return Sigmoid(float(fitted.a_), float(fitted.b_))
    if type(fitted).__name__ != "IsotonicRegression":
        raise NotCompiled(f"{type(fitted).__name__} has no compiled form")
    x, y = fitted.X_thresholds_, fitted.y_thresholds_
    if x.dtype != y.dtype or fitted.out_of_bounds != "clip":
        raise NotCompiled("its isotonic regression is not clipped")
    return Isotonic(x, y, float(fitted.X_min_), float(fitted.X_max_))


@compiles_predictor("sklearn.FixedThresholdClassifier")
def compile_fixed_threshold(fitted: Any, sample: Data) -> Predictor:
    """Compiles FixedThresholdClassifier."""
    estimator = getattr(fitted, "estimator_", fitted.estimator)
    node = _threshold_classifier(fitted, estimator, 0.0, fitted.pos_label, sample)
    if fitted.threshold == "auto":
        node.threshold = 0.5 if node.method == PROBABILITIES else 0.0
    else:
        node.threshold = _threshold(fitted.threshold)
    return node


@compiles_predictor("sklearn.TunedThresholdClassifierCV")
def compile_tuned_threshold(fitted: Any, sample: Data) -> Predictor:
    """Compiles TunedThresholdClassifierCV."""
    positive = fitted._curve_scorer._get_pos_label()  # noqa: SLF001  # as in its `predict`
    threshold = _threshold(fitted.best_threshold_)
    return _threshold_classifier(fitted, fitted.estimator_, threshold, positive, sample)


def _threshold(threshold: Any) -> npt.NDArray[Any] | float:
    return np.asarray(threshold) if isinstance(threshold, np.generic) else float(threshold)


def _threshold_classifier(
    fitted: Any, estimator: Any, threshold: npt.NDArray[Any] | float, positive_label: Any, sample: Data
) -> ThresholdClassifier:
    classes = require_classes(fitted.classes_)
    if len(classes) != 2:
        raise NotCompiled("it has more than two classes")
    wanted = (PROBABILITIES, DECISION) if fitted.response_method == "auto" else (fitted.response_method,)
    method = first_method(estimator, *wanted)
    part = compile_part(estimator, method, sample)
    if positive_label is None:
        positive = 1
    elif positive_label in classes.tolist():
        positive = int(np.flatnonzero(classes == positive_label)[0])
    else:
        raise NotCompiled("its positive label is not among its classes")
    return ThresholdClassifier(part, method, threshold, positive, classes)
