"""Neural networks: MLPClassifier and MLPRegressor."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, Matrix, NotCompiled, as_validated, check_finite
from serving.runtime.compiled.links import expit, softmax, two_columns
from serving.runtime.compiled.nodes import Predictor, compiles_predictor

ACTIVATIONS = ("identity", "logistic", "tanh", "relu", "softmax", "exp")


@dataclass
class Network(Predictor):
    """Fully connected layers; the last returns values or class probabilities."""

    coefs: list[Matrix]
    """For each layer, shape `(n_inputs, n_outputs)`."""
    intercepts: list[npt.NDArray[Any]]
    activation: str
    """For all layers but the last."""
    out_activation: str
    classes: npt.NDArray[Any] | None
    """None for a regressor."""

    def output(self, data: Data) -> Output:
        """Returns the values, or labels and probabilities."""
        out = self._forward(data)
        if self.classes is None:
            return Output(values=out.ravel() if out.shape[1] == 1 else out)
        if out.shape[1] > 1:
            return Output(labels=self.classes.take(out.argmax(axis=1)), probabilities=out)
        positive = out.ravel()
        labels = self.classes.take((positive > 0.5).astype(np.intp))
        return Output(labels=labels, probabilities=two_columns(positive))

    def _forward(self, data: Data) -> Matrix:
        out = as_validated(data)
        check_finite(out)
        last = len(self.coefs) - 1
        for layer, (coef, intercept) in enumerate(zip(self.coefs, self.intercepts, strict=True)):
            out = out @ coef
            out += intercept
            out = _activate(self.out_activation if layer == last else self.activation, out)
        return out


def _activate(activation: str, x: Matrix) -> Matrix:
    """Returns the activation of a layer's array; may overwrite it."""
    if activation == "relu":
        return np.maximum(x, 0, out=x)
    if activation == "tanh":
        return np.tanh(x, out=x)
    if activation == "logistic":
        return expit(x)
    if activation == "softmax":
        return softmax(x)
    if activation == "exp":
        return np.exp(x, out=x)
    return x


@compiles_predictor("sklearn.MLPRegressor")
def compile_regressor_network(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # the sample does not matter
    """Compiles MLPRegressor."""
    return _network(fitted, None)


@compiles_predictor("sklearn.MLPClassifier")
def compile_classifier_network(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles MLPClassifier with one label per row."""
    if fitted._label_binarizer.y_type_.startswith("multilabel"):  # noqa: SLF001  # as in its `predict`
        raise NotCompiled("it has several labels per row")
    if len(fitted.classes_) < 2:
        raise NotCompiled("it has only one class")
    return _network(fitted, fitted.classes_)


def _network(fitted: Any, classes: npt.NDArray[Any] | None) -> Network:
    for activation in (fitted.activation, fitted.out_activation_):
        if activation not in ACTIVATIONS:
            raise NotCompiled(f"activation {activation} has no compiled form")
    return Network(
        list(fitted.coefs_), list(fitted.intercepts_), fitted.activation, fitted.out_activation_, classes
    )
