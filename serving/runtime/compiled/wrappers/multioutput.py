"""One estimator per target: MultiOutputRegressor, MultiOutputClassifier and chains."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, Matrix
from serving.runtime.compiled.nodes import Predictor, compile_predictor, compiles_predictor
from serving.runtime.compiled.wrappers.responses import (
    PREDICT,
    PROBABILITIES,
    compile_part,
    require_numbers,
    response,
)


@dataclass
class SideBySide(Predictor):
    """One part per target."""

    parts: list[Predictor]
    is_classifier: bool

    def output(self, data: Data) -> Output:
        """Returns values or labels, shape `(n_rows, n_targets)`."""
        out = np.asarray([response(part, PREDICT, data) for part in self.parts]).T
        return Output(labels=out) if self.is_classifier else Output(values=out)


@dataclass
class TargetChain(Predictor):
    """One part per target, which also gets the earlier parts' outputs."""

    parts: list[Predictor]
    method: str
    """The method whose results later parts get."""
    order: list[int]
    """The target of each part."""
    is_classifier: bool

    def output(self, data: Data) -> Output:
        """Returns values or labels as float64, shape `(n_rows, n_targets)`."""
        out = self.targets(require_numbers(data))
        return Output(labels=out) if self.is_classifier else Output(values=out)

    def targets(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """Returns the parts' outputs.

        Source: sklearn.multioutput._BaseChain._get_predictions.
        """
        said = np.zeros((len(matrix), len(self.parts)))
        out = np.zeros_like(said)
        for position, part in enumerate(self.parts):
            columns = np.hstack((matrix, said[:, :position]))
            for_others = response(part, self.method, columns)
            said[:, position] = for_others[:, 1] if self.method == PROBABILITIES else for_others
            out[:, self.order[position]] = response(part, PREDICT, columns)
        return out


@compiles_predictor("sklearn.MultiOutputRegressor", "sklearn.MultiOutputClassifier")
def compile_side_by_side(fitted: Any, sample: Data) -> Predictor:
    """Compiles one estimator per target."""
    parts = [compile_part(one, PREDICT, sample) for one in fitted.estimators_]
    return SideBySide(parts, hasattr(fitted, "classes_"))


@compiles_predictor("sklearn.RegressorChain", "sklearn.ClassifierChain")
def compile_chain_of_targets(fitted: Any, sample: Data) -> Predictor:
    """Compiles chains of regressors or of binary classifiers."""
    matrix = require_numbers(sample)
    node = TargetChain(
        [],
        getattr(fitted, "chain_method_", PREDICT),
        [int(target) for target in fitted.order_],
        hasattr(fitted, "classes_"),
    )
    for position, one in enumerate(fitted.estimators_):
        columns = np.hstack((matrix, np.zeros((len(matrix), position))))
        node.parts.append(compile_predictor(one, columns))
    node.targets(matrix)
    return node
