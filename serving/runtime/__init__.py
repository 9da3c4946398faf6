"""What turns inputs into outputs: the seam between a prepared model and the request path."""

from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from serving.schema import Inputs, Schema


class Output(msgspec.Struct, frozen=True):
    """What a model says of `n_rows` rows.

    A classifier fills `labels`, and `probabilities` where it has them; every other model fills `values`.
    """

    labels: npt.NDArray[Any] | None = None
    """Shape `(n_rows,)`, or `(n_rows, n_outputs)` of a multi-output classifier."""
    probabilities: npt.NDArray[np.floating[Any]] | None = None
    """Shape `(n_rows, n_classes)`, the classes in the manifest's order."""
    values: npt.NDArray[Any] | None = None
    """Shape `(n_rows,)`, or `(n_rows, n_outputs)`; objects where the model returns more than numbers."""


class Description(msgspec.Struct, frozen=True):
    """What a runtime knows of its model once it is loaded."""

    task: str
    """`classification`, `regression` or `other`."""
    classes: list[Any] | None = None
    """The labels in the order of the probabilities' columns, as JSON values."""
    has_probabilities: bool = False


class Runtime(Protocol):
    """A loaded model. `predict` is called from one thread at a time."""

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:
        """Returns what the model says of the rows; raises whatever the model raises."""


def load_runtime(name: str, folder: Path, schema: Schema) -> Runtime:
    """Loads the runtime that a manifest names from its prepared folder."""
    if name == "native":
        from serving.runtime.native import load_native

        return load_native(folder / "mlflow", schema)
    raise ValueError(f"unknown runtime {name!r}")
