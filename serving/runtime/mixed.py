"""The mixed runtime: a compiled pipeline in which some steps stay in the library that trained them.

For a pipeline with a step of the model's own code: that step costs what it costs, and the others do not.
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from serving.model.schema import Inputs, Schema
from serving.runtime import Output
from serving.runtime.compiled import inputs_to_data
from serving.runtime.compiled.data import Columns, Data, is_text
from serving.runtime.compiled.nodes import NotCompiled, Predictor, Transformer
from serving.runtime.compiled.plan import load_plan, nodes_of
from serving.runtime.native import TEXT, adapter_of, load_native
from serving.runtime.trusted import Trust

MAX_SPARSE_COLUMNS = 1000
"""A sparse matrix of more columns stays with those who can compute with it."""


@dataclass
class NativeStep(Transformer):
    """A transformer as it was fitted, by its position in the pipeline."""

    position: int
    _fitted: Any = field(init=False, default=None, repr=False)

    def bind(self, pipeline: Any) -> None:
        """Takes the fitted transformer out of the pipeline."""
        self._fitted = pipeline.steps[self.position][1]

    def transform(self, data: Data) -> Data:
        """Returns what it makes of the rows; raises whatever it raises."""
        return to_data(self._fitted.transform(to_frame(data)))


@dataclass
class NativeLast(Predictor):
    """The estimator at the end of the pipeline, as it was fitted."""

    _adapter: Any = field(init=False, default=None, repr=False)

    def bind(self, pipeline: Any) -> None:
        """Takes the fitted estimator out of the pipeline."""
        self._adapter = adapter_of(pipeline.steps[-1][1])

    def output(self, data: Data) -> Output:
        """Returns what it says of the rows; raises whatever it raises."""
        return self._adapter.predict(to_frame(data), {})  # type: ignore[no-any-return]


class MixedRuntime:
    """See `serving.runtime.Runtime`."""

    def __init__(self, pipeline: Any, predictor: Predictor, schema: Schema) -> None:
        for node in nodes_of(predictor):
            if isinstance(node, (NativeStep, NativeLast)):
                node.bind(pipeline)
        self._predictor = predictor
        self._schema = schema

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:  # noqa: ARG002  # only a pyfunc has any
        """Returns what the model says of the rows; raises whatever the model raises."""
        with warnings.catch_warnings():
            # As in `serving.runtime.native`.
            warnings.simplefilter("ignore")
            return self._predictor.output(inputs_to_data(inputs, self._schema))


def to_frame(data: Data) -> Any:
    """Returns data as a step of scikit-learn was given it: a frame of columns, or a matrix."""
    if not isinstance(data, Columns):
        return data
    if data.frame is not None:
        return data.frame
    return pd.DataFrame(
        {
            name: _to_pandas(array) if is_text(array) else array
            for name, array in zip(data.names, data.arrays, strict=True)
        },
        copy=False,
    )


def _to_pandas(array: Any) -> Any:
    holds_text = all(isinstance(cell, str) or cell != cell for cell in array.tolist())  # noqa: PLR0124  # NaN
    # pandas would make text of objects that are all text or None, and NaN of the None.
    return pd.array(array, dtype=TEXT) if holds_text else pd.Series(array, dtype=object)


def to_data(transformed: Any) -> Data:
    """Returns what a scikit-learn transformer returned as a compiled pipeline takes it.

    Raises:
        NotCompiled: a sparse matrix of more than `MAX_SPARSE_COLUMNS` columns.
    """
    if isinstance(transformed, pd.Series):
        return Columns((str(transformed.name),), [transformed.to_numpy()], transformed)
    if hasattr(transformed, "iloc"):
        names = tuple(str(name) for name in transformed.columns)
        return Columns(names, [transformed.iloc[:, i].to_numpy() for i in range(len(names))], transformed)
    if hasattr(transformed, "toarray") and transformed.shape[1] > MAX_SPARSE_COLUMNS:
        raise NotCompiled("a step returns a sparse matrix that is too wide to be filled in")
    return np.asarray(transformed.toarray() if hasattr(transformed, "toarray") else transformed)


def load_mixed(folder: Path, schema: Schema, trust: Trust | None) -> MixedRuntime:
    """Loads the native steps from the MLflow model and the rest from the plan, in a prepared folder."""
    pipeline = load_native(folder / "mlflow", schema, trust).model
    return MixedRuntime(pipeline, load_plan(folder / "compiled"), schema)
