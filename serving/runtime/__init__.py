"""Runtimes turn inputs into outputs: the interface between a prepared model and the request path."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from serving.model.schema import Inputs, Schema

if TYPE_CHECKING:
    from serving.runtime.trusted import Trust


class Container(StrEnum):
    """How `mlflow.pyfunc` returned values, other than as an array, a list or records."""

    COLUMN = "column"
    """A series, or a frame with one column."""
    COLUMNS = "columns"
    """A dictionary of arrays."""
    SINGLE = "single"
    """One value for all rows."""


class Output(msgspec.Struct, frozen=True):
    """A model's output for `n_rows` rows.

    A classifier fills `labels`, and `probabilities` if it has them; every other model fills `values`.
    """

    labels: npt.NDArray[Any] | None = None
    """Shape `(n_rows,)`, or `(n_rows, n_outputs)` of a multi-output classifier."""
    probabilities: npt.NDArray[np.floating[Any]] | None = None
    """Shape `(n_rows, n_classes)`, the classes in the manifest's order."""
    values: npt.NDArray[Any] | None = None
    """Shape `(n_rows,)`, or `(n_rows, n_outputs)`; objects if the model returns more than numbers."""
    container: Container | None = None
    """Of the values."""
    name: str = ""
    """Of a container's only column."""


def slice_output(output: Output, start: int, stop: int) -> Output:
    """Returns the output for the rows from `start` to before `stop`."""
    return Output(
        output.labels[start:stop] if output.labels is not None else None,
        output.probabilities[start:stop] if output.probabilities is not None else None,
        output.values[start:stop] if output.values is not None else None,
        output.container,
        output.name,
    )


def scores_of(probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns one number per row: a binary classifier's probability of its second class, another's of the predicted class.

    Args:
        probabilities: shape `(n_rows, n_classes)`.
    """
    return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities.max(axis=1)


def count_output(output: Output) -> int:
    """Returns the number of rows in an output."""
    return next(len(a) for a in (output.labels, output.values, output.probabilities) if a is not None)


class WrongRowCount(Exception):
    """A model did not return one result per row."""

    def __init__(self, n_results: int, n_rows: int) -> None:
        super().__init__(
            f"the model returned {n_results} result{'s' * (n_results != 1)} for {n_rows} row{'s' * (n_rows != 1)}"
        )


class Description(msgspec.Struct, frozen=True):
    """A runtime's description of its loaded model."""

    task: str
    """`classification`, `regression` or `other`."""
    classes: list[Any] | None = None
    """The labels in the order of the probabilities' columns, as JSON values."""
    has_probabilities: bool = False


class Runtime(Protocol):
    """A loaded model. `predict` is called from one thread at a time."""

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:
        """Returns the model's output for the rows; raises whatever the model raises."""


def load_runtime(
    name: str,
    folder: Path,
    schema: Schema,
    trust: "Trust | None",
    *,
    n_threads: int,
    is_per_row: bool = True,
) -> Runtime:
    """Loads a runtime from a prepared folder.

    Args:
        name: `compiled`, `mixed` or `native`.
        folder: the prepared model.
        schema: its inputs.
        trust: the types that it may contain; None runs any code in its files. A compiled one is plain data.
        n_threads: threads of a compiled runtime for one large call.
        is_per_row: whether a native one must return one result per row.

    Raises:
        ValueError: the name is unknown.
        Exception: whatever the library raises while loading.
    """
    if name == "compiled":
        from serving.runtime.compiled import load_compiled

        return load_compiled(folder / "compiled", schema, n_threads)
    if name == "mixed":
        from serving.runtime.mixed import load_mixed

        return load_mixed(folder, schema, trust)
    if name == "native":
        from serving.runtime.native import load_native

        return load_native(folder / "mlflow", schema, trust, is_per_row=is_per_row)
    raise ValueError(f"unknown runtime {name!r}")
