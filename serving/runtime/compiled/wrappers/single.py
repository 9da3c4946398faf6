"""Wrappers of one estimator: searches, frozen estimators, transformed targets; and baselines."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, Matrix, NotCompiled, check_finite, count_rows
from serving.runtime.compiled.nodes import (
    Node,
    Predictor,
    Transformer,
    compile_predictor,
    compile_transformer,
    compiles_predictor,
    compiles_transformer,
    type_name,
)
from serving.runtime.compiled.wrappers.responses import PREDICT, compile_part, require_classes, response


class Inverse(Node):
    """Inverse transformation of a target."""

    def invert(self, values: Matrix) -> Matrix:
        """Returns the untransformed target, shape `(n_rows, n_targets)`.

        Raises:
            ValueError: if the original raises.
        """
        raise NotImplementedError


@dataclass
class FunctionInverse(Inverse):
    """A NumPy function of one number."""

    name: str | None
    """None: the values stay unchanged."""
    wants_finite: bool

    def invert(self, values: Matrix) -> Matrix:
        """Returns the function of the values."""
        if self.wants_finite:
            check_finite(values)
        out: Matrix = values if self.name is None else getattr(np, self.name)(values)
        return out


@dataclass
class ScaleInverse(Inverse):
    """A sequence of arithmetic operations."""

    operations: list[str]
    """`multiply`, `divide`, `add`, `subtract`."""
    operands: list[npt.NDArray[Any]]
    """Operand of each operation, shape `(n_targets,)`."""

    def invert(self, values: Matrix) -> Matrix:
        """Returns the values scaled back."""
        check_finite(values, allow_nan=True)
        for operation, operand in zip(self.operations, self.operands, strict=True):
            values = getattr(np, operation)(values, operand)
        return values


@dataclass
class YeoJohnsonInverse(Inverse):
    """Inverse scaling, then the inverse Yeo-Johnson transform."""

    scale: ScaleInverse
    lambdas: list[float]

    def invert(self, values: Matrix) -> Matrix:
        """Returns the values transformed back, column by column."""
        values = self.scale.invert(values)
        with np.errstate(invalid="ignore"):
            columns = [_yeo_johnson(values[:, i], power) for i, power in enumerate(self.lambdas)]
        return np.stack(columns, axis=1)


def _yeo_johnson(x: npt.NDArray[Any], power: float) -> npt.NDArray[Any]:
    """Source: sklearn.preprocessing.PowerTransformer._yeo_johnson_inverse_transform."""
    out = np.zeros_like(x)
    is_positive = x >= 0
    above, below = x[is_positive], x[~is_positive]
    if abs(power) < np.spacing(1.0):
        out[is_positive] = np.exp(above) - 1
    else:
        out[is_positive] = np.power(above * power + 1, 1 / power) - 1
    if abs(power - 2) > np.spacing(1.0):
        out[~is_positive] = 1 - np.power(-(2 - power) * below + 1, 1 / (2 - power))
    else:
        out[~is_positive] = 1 - np.exp(-below)
    return out


@dataclass
class TransformedTarget(Predictor):
    """A regressor of a transformed target, and the inverse transformation."""

    part: Predictor
    inverse: Inverse
    is_flat: bool
    """Whether the target was one-dimensional."""

    def output(self, data: Data) -> Output:
        """Returns values of the untransformed target."""
        values = response(self.part, PREDICT, data)
        out = self.inverse.invert(values.reshape(-1, 1) if values.ndim == 1 else values)
        return Output(values=out[:, 0] if self.is_flat and out.shape[1] == 1 else out)


@dataclass
class ConstantClassifier(Predictor):
    """A baseline with the same output for every row."""

    label: npt.NDArray[Any]
    """Shape `(1,)`; the dtype may differ from that of the classes."""
    probabilities: npt.NDArray[np.float64]
    """Shape `(n_classes,)`."""
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns the label and the probabilities, once per row."""
        n_rows = count_rows(data)
        probabilities = np.tile(self.probabilities, (n_rows, 1))
        return Output(labels=np.repeat(self.label, n_rows), probabilities=probabilities)


@dataclass
class ConstantRegressor(Predictor):
    """The same for values."""

    value: npt.NDArray[Any]
    """Shape `(n_targets,)`."""

    def output(self, data: Data) -> Output:
        """Returns the values, once per row."""
        values = np.tile(self.value, (count_rows(data), 1))
        return Output(values=values.ravel() if len(self.value) == 1 else values)


@compiles_predictor(
    "sklearn.GridSearchCV",
    "sklearn.RandomizedSearchCV",
    "sklearn.HalvingGridSearchCV",
    "sklearn.HalvingRandomSearchCV",
)
def compile_search(fitted: Any, sample: Data) -> Predictor:
    """Compiles the best estimator of a search."""
    if not hasattr(fitted, "best_estimator_"):
        raise NotCompiled("the best estimator of the search was not fitted")
    return compile_predictor(fitted.best_estimator_, sample)


@compiles_predictor("sklearn.RANSACRegressor", "sklearn.SelfTrainingClassifier")
def compile_refitted(fitted: Any, sample: Data) -> Predictor:
    """Compiles the estimator fitted last: on the inliers, or on the labelled rows."""
    return compile_predictor(fitted.estimator_, sample)


@compiles_predictor("sklearn.FrozenEstimator")
def compile_frozen(fitted: Any, sample: Data) -> Predictor:
    """Compiles the estimator inside."""
    return compile_predictor(fitted.estimator, sample)


@compiles_transformer("sklearn.FrozenEstimator")
def compile_frozen_transformer(fitted: Any, sample: Data) -> Transformer:
    """Compiles the transformer inside."""
    return compile_transformer(fitted.estimator, sample)


@compiles_predictor("sklearn.TransformedTargetRegressor")
def compile_transformed_target(fitted: Any, sample: Data) -> Predictor:
    """Compiles regressors of a target whose inverse is a NumPy function or a scaler."""
    part = compile_part(fitted.regressor_, PREDICT, sample)
    inverse = _inverse(fitted.transformer_)
    if response(part, PREDICT, sample).dtype != np.float64:
        raise NotCompiled("its regressor does not return float64")
    return TransformedTarget(part, inverse, fitted._training_dim == 1)  # noqa: SLF001  # as in its `predict`


def _inverse(fitted: Any) -> Inverse:
    kind = type_name(fitted)
    if kind == "sklearn.FunctionTransformer":
        return _function_inverse(fitted)
    if kind == "sklearn.PowerTransformer" and fitted.method == "yeo-johnson":
        scale = _scale_inverse(fitted._scaler) if fitted.standardize else ScaleInverse([], [])  # noqa: SLF001  # its only fitted scaler
        return YeoJohnsonInverse(scale, [float(power) for power in fitted.lambdas_])
    return _scale_inverse(fitted)


def _function_inverse(fitted: Any) -> FunctionInverse:
    function = fitted.inverse_func
    if function is None:
        return FunctionInverse(None, bool(fitted.validate))
    is_known = isinstance(function, np.ufunc) and getattr(np, function.__name__, None) is function
    if not is_known or function.nin != 1 or function.nout != 1 or fitted.inv_kw_args:
        raise NotCompiled("the inverse function of the target is not a NumPy function")
    return FunctionInverse(function.__name__, bool(fitted.validate))


def _scale_inverse(fitted: Any) -> ScaleInverse:
    """Source: `inverse_transform` of sklearn.preprocessing's scalers."""
    kind = type_name(fitted)
    if kind == "sklearn.StandardScaler":
        steps = [("multiply", fitted.scale_ if fitted.with_std else None)]
        steps += [("add", fitted.mean_ if fitted.with_mean else None)]
    elif kind == "sklearn.RobustScaler":
        steps = [("multiply", fitted.scale_ if fitted.with_scaling else None)]
        steps += [("add", fitted.center_ if fitted.with_centering else None)]
    elif kind == "sklearn.MinMaxScaler":
        steps = [("subtract", fitted.min_), ("divide", fitted.scale_)]
    elif kind == "sklearn.MaxAbsScaler":
        steps = [("multiply", fitted.scale_)]
    else:
        raise NotCompiled(f"the inverse of a {type(fitted).__name__} has no compiled form")
    used = [(operation, np.asarray(operand)) for operation, operand in steps if operand is not None]
    return ScaleInverse([operation for operation, _ in used], [operand for _, operand in used])


@compiles_predictor("sklearn.DummyClassifier")
def compile_dummy_classifier(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # it uses no column
    """Compiles the deterministic strategies."""
    strategy, classes = fitted.strategy, fitted.classes_
    if fitted.n_outputs_ != 1 or fitted.sparse_output_:
        raise NotCompiled("it has several labels per row")
    if strategy not in ("prior", "most_frequent", "constant"):
        raise NotCompiled(f"strategy {strategy} is random")
    prior: npt.NDArray[np.float64] = np.asarray(fitted.class_prior_, dtype=np.float64)
    if strategy == "constant":
        constant = np.ravel(np.tile(fitted.constant, (1, 1)))
        one_hot = (classes == fitted.constant).astype(np.float64)
        return ConstantClassifier(constant, one_hot, require_classes(classes))
    # Source: DummyClassifier.predict, whose np.tile turns an object into text of a fixed width.
    label = np.ravel(np.tile([classes[prior.argmax()]], (1, 1)))
    one_hot = (np.arange(len(classes)) == prior.argmax()).astype(np.float64)
    return ConstantClassifier(label, prior if strategy == "prior" else one_hot, require_classes(classes))


@compiles_predictor("sklearn.DummyRegressor")
def compile_dummy_regressor(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # as above
    """Compiles DummyRegressor."""
    value = np.broadcast_to(np.ravel(fitted.constant_), (fitted.n_outputs_,))
    return ConstantRegressor(value)
