"""The mixed runtime: a compiled model with some parts in the library that trained them.

For a model with a part that has no compiled form, such as a step of your own code: only that part runs at native speed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse  # type: ignore[import-untyped]  # it has no types

from serving.model.schema import Inputs, Schema
from serving.runtime import Output
from serving.runtime.compiled import inputs_to_data
from serving.runtime.compiled.data import Columns, Data, NotCompiled, is_text
from serving.runtime.compiled.nodes import Predictor, Transformer, nodes_of
from serving.runtime.compiled.plan import load_plan
from serving.runtime.compiled.sparse import Sparse
from serving.runtime.native import TEXT, adapter_of, asking, load_native
from serving.runtime.trusted import Trust

MAX_SPARSE_COLUMNS = 1000
"""Sparse matrices with more columns stay sparse."""


@dataclass
class NativeStep(Transformer):
    """A transformer as it was fitted."""

    path: list[str | int]
    """Its path from the model: attributes, and positions in lists."""
    name: str
    """Its name in the model's `get_params`."""
    is_flat: bool
    """Whether it takes a column without a second dimension."""
    native_reason: str
    _fitted: Any = field(init=False, default=None, repr=False)

    def bind(self, model: Any) -> None:
        """Takes the fitted transformer out of the model."""
        self._fitted = _part_of(model, self.path)

    def transform(self, data: Data) -> Data:
        """Returns the transformed rows; raises whatever the transformer raises."""
        frame = to_frame(data)
        return to_data(self._fitted.transform(frame.iloc[:, 0] if self.is_flat else frame))


@dataclass
class NativePredictor(Predictor):
    """An estimator as it was fitted; see `NativeStep`."""

    path: list[str | int]
    name: str
    native_reason: str
    _adapter: Any = field(init=False, default=None, repr=False)

    def bind(self, model: Any) -> None:
        """Takes the fitted estimator out of the model."""
        self._adapter = adapter_of(_part_of(model, self.path))

    def output(self, data: Data) -> Output:
        """Returns its output for the rows; raises whatever it raises."""
        return self._adapter.predict(to_frame(data), {})  # type: ignore[no-any-return]

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the result of its decision function."""
        return self.ask("decision_function", data)

    def ask(self, method: str, data: Data) -> npt.NDArray[Any]:
        """Returns the result of its method of that name."""
        return np.asarray(getattr(self._adapter.model, method)(to_frame(data)))


class NativeParts:
    """Puts the parts of a model that have no compiled form into its plan as they are."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def transformer(self, fitted: Any, sample: Data, error: NotCompiled) -> Transformer:
        """Returns a native step.

        Raises:
            NotCompiled: it is not found in the model, or its output is unsupported.
        """
        path, name = self._find(fitted, error)
        is_flat = isinstance(sample, Columns) and sample.is_flat
        step = NativeStep(path, name, is_flat, str(error))
        step.bind(self._model)
        step.transform(sample)
        return step

    def predictor(self, fitted: Any, error: NotCompiled) -> Predictor:
        """Returns a native estimator; see `transformer`."""
        path, name = self._find(fitted, error)
        predictor = NativePredictor(path, name, str(error))
        predictor.bind(self._model)
        return predictor

    def _find(self, fitted: Any, error: NotCompiled) -> tuple[list[str | int], str]:
        for path, names, part in _parts(self._model, [], []):
            if part is fitted and path:
                return path, "__".join(names) or type(fitted).__name__.lower()
        raise error


def _parts(
    model: Any, path: list[str | int], names: list[str]
) -> Iterator[tuple[list[str | int], list[str], Any]]:
    """Yields a model and its fitted parts, each with its path and the names on the path."""
    yield path, names, model
    for attribute in ("steps", "transformers_", "transformer_list"):
        for position, (name, part, *_) in enumerate(getattr(model, attribute, ())):
            yield from _parts(part, [*path, attribute, position, 1], [*names, name])
    for attribute in ("estimators_", "calibrated_classifiers_"):
        parts = getattr(model, attribute, None)
        for position, part in enumerate(parts if isinstance(parts, list) else ()):
            yield from _parts(part, [*path, attribute, position], names)
    for attribute in ("best_estimator_", "estimator_", "regressor_", "final_estimator_", "estimator"):
        part = getattr(model, attribute, None)
        if part is not None:
            yield from _parts(part, [*path, attribute], names)


def _part_of(model: Any, path: list[str | int]) -> Any:
    for key in path:
        model = getattr(model, key) if isinstance(key, str) else model[key]
    return model


def native_parts(predictor: Predictor) -> list[NativeStep | NativePredictor]:
    """Returns the parts that stay in their own library."""
    return [node for node in nodes_of(predictor) if isinstance(node, NativeStep | NativePredictor)]


class MixedRuntime:
    """See `serving.runtime.Runtime`."""

    def __init__(self, model: Any, predictor: Predictor, schema: Schema) -> None:
        for node in native_parts(predictor):
            node.bind(model)
        self._predictor = predictor
        self._schema = schema

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:  # noqa: ARG002  # only a pyfunc has any
        """Returns the model's output for the rows; raises whatever the model raises."""
        with asking():
            return self._predictor.output(inputs_to_data(inputs, self._schema))


def to_frame(data: Data) -> Any:
    """Returns data in the form that a scikit-learn step expects: a frame of columns, or a matrix."""
    if isinstance(data, Sparse):
        return scipy.sparse.csr_matrix((data.values, data.columns, data.starts), data.shape)
    if not isinstance(data, Columns):
        return data
    if data.frame is not None:
        return data.frame if data.taken is None else data.frame.iloc[:, list(data.taken)]
    return pd.DataFrame(
        {
            name: _to_pandas(array) if is_text(array) else array
            for name, array in zip(data.names, data.arrays, strict=True)
        },
        copy=False,
    )


def _to_pandas(array: Any) -> Any:
    holds_text = all(isinstance(cell, str) or cell != cell for cell in array.tolist())  # noqa: PLR0124  # NaN
    # pandas would convert objects that are all text or None to text, with NaN for None.
    return pd.array(array, dtype=TEXT) if holds_text else pd.Series(array, dtype=object)


def to_data(transformed: Any) -> Data:
    """Converts a scikit-learn transformer's output to the data of a compiled pipeline."""
    if isinstance(transformed, pd.Series):
        return Columns((str(transformed.name),), [transformed.to_numpy()], transformed)
    if hasattr(transformed, "iloc"):
        names = tuple(str(name) for name in transformed.columns)
        return Columns(names, [transformed.iloc[:, i].to_numpy() for i in range(len(names))], transformed)
    if hasattr(transformed, "toarray") and transformed.shape[1] > MAX_SPARSE_COLUMNS:
        rows = transformed.tocsr()
        rows.sort_indices()
        return Sparse(rows.data, rows.indices, rows.indptr, rows.shape[1])
    return np.asarray(transformed.toarray() if hasattr(transformed, "toarray") else transformed)


def load_mixed(folder: Path, schema: Schema, trust: Trust | None) -> MixedRuntime:
    """Loads the native steps from the MLflow model and the rest from the plan, in a prepared folder."""
    pipeline = load_native(folder / "mlflow", schema, trust).model
    return MixedRuntime(pipeline, load_plan(folder / "compiled"), schema)
