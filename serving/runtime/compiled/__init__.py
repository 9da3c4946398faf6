"""The compiled runtime: a whole pipeline as NumPy and onnxruntime, without the library that trained it.

nodes.py        the parts of a compiled pipeline, and the registry of compilers by type
data.py         the rows passed between nodes
plan.py         the pipeline on disk
links.py        link functions that several families share
transformers/   one family of steps each: the nodes, and how to compile a fitted transformer to them
estimators/     the same for last steps
wrappers/       the same for meta-estimators: Pipeline, ColumnTransformer, voting, calibration, …
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.model.schema import Form, Inputs, Kind, Schema, take
from serving.runtime import Output
from serving.runtime.compiled import estimators, transformers, wrappers  # noqa: F401  # they register their families
from serving.runtime.compiled.data import Columns, Data
from serving.runtime.compiled.nodes import Predictor, compile_predictor
from serving.runtime.compiled.plan import load_plan

CHUNK_ROWS = 1024
"""Rows processed at a time: intermediate results stay in the CPU cache, and a wide one-hot encoding of a large request
does not fill the memory."""


def inputs_to_data(inputs: Inputs, schema: Schema) -> Data:
    """Returns the argument of a compiled pipeline: columns, or the matrix of a tensor signature."""
    return to_data(inputs, _names(schema))


def to_data(inputs: Inputs, names: tuple[Any, ...] | None) -> Data:
    """The same with the columns' names; None for a tensor."""
    return inputs.columns[0] if names is None else Columns(names, inputs.columns)


def _names(schema: Schema) -> tuple[Any, ...] | None:
    is_tensor = schema.form is Form.BARE and schema.columns[0].type.kind is Kind.TENSOR
    return None if is_tensor else tuple(schema.labels)


class CompiledRuntime:
    """A compiled pipeline; see `serving.runtime.Runtime`."""

    def __init__(self, predictor: Predictor, schema: Schema, n_threads: int = 1) -> None:
        """Takes a compiled pipeline.

        Args:
            predictor: the pipeline.
            schema: its inputs.
            n_threads: threads for the chunks of one large call; NumPy and onnxruntime release the GIL.
        """
        self._predictor = predictor
        self._names = _names(schema)
        self._helpers = ThreadPoolExecutor(n_threads, "chunk") if n_threads > 1 else None

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:  # noqa: ARG002  # only a pyfunc has any
        """Returns the model's output for the rows.

        Raises:
            ValueError: if the original raises.
        """
        if inputs.n_rows <= CHUNK_ROWS:
            return self._predictor.output(to_data(inputs, self._names))

        def chunk(start: int) -> Output:
            rows = take(inputs, start, start + CHUNK_ROWS)
            return self._predictor.output(to_data(rows, self._names))

        starts = range(0, inputs.n_rows, CHUNK_ROWS)
        parts = list(map(chunk, starts) if self._helpers is None else self._helpers.map(chunk, starts))
        return Output(
            labels=_join([part.labels for part in parts]),
            probabilities=_join([part.probabilities for part in parts]),
            values=_join([part.values for part in parts]),
        )


def _join(parts: list[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None


def load_compiled(folder: Path, schema: Schema, n_threads: int) -> CompiledRuntime:
    """Loads a compiled pipeline from its folder."""
    return CompiledRuntime(load_plan(folder), schema, n_threads)


__all__ = ["CompiledRuntime", "compile_predictor", "inputs_to_data", "load_compiled"]
