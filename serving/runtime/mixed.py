"""The mixed runtime: the front steps of a pipeline in the library that trained them, the rest compiled.

For a pipeline whose first steps are the model's own code: the front costs what it costs, and the estimator
behind it no longer does.
"""

from pathlib import Path
from typing import Any

import numpy as np

from serving.runtime import Output
from serving.runtime.compiled.data import Columns, Data
from serving.runtime.compiled.nodes import Predictor
from serving.runtime.compiled.plan import load_plan
from serving.runtime.native import inputs_to_frame, load_native
from serving.schema import Inputs, Schema


class MixedRuntime:
    """See `serving.runtime.Runtime`."""

    def __init__(self, pipeline: Any, n_front: int, rest: Predictor, schema: Schema) -> None:
        self._front = pipeline[:n_front]
        self._rest = rest
        self._schema = schema

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:  # noqa: ARG002  # only a pyfunc has any
        """Returns what the model says of the rows; raises whatever the model raises."""
        return self._rest.output(to_data(self._front.transform(inputs_to_frame(inputs, self._schema))))


def to_data(transformed: Any) -> Data:
    """Returns what a scikit-learn transformer returned as a compiled pipeline takes it."""
    if hasattr(transformed, "iloc"):
        names = tuple(str(name) for name in transformed.columns)
        return Columns(names, [transformed.iloc[:, i].to_numpy() for i in range(len(names))])
    return np.asarray(transformed.toarray() if hasattr(transformed, "toarray") else transformed)


def load_mixed(folder: Path, n_front: int, schema: Schema) -> MixedRuntime:
    """Loads the front from the MLflow model and the rest from the plan, in a prepared folder."""
    pipeline = load_native(folder / "mlflow", schema).model
    return MixedRuntime(pipeline, n_front, load_plan(folder / "compiled"), schema)
