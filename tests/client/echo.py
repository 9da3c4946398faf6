"""A model that answers what it was given, cell by cell."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import Array, DataType

from tests.support.models import REQUIREMENTS, copy_registry, fill_registry
from tests.support.prepared import prepare_all
from tests.support.shared import once

COLUMNS: dict[str, Any] = {
    "text": "string",
    "number": "double",
    "narrow": "float",
    "count": "long",
    "flag": "boolean",
    "moment": "datetime",
    "blob": "binary",
    "items": Array(DataType.double),
}


def show(column: pd.Series) -> list[str]:
    """The kind of a column, and each of its cells to the last digit; what is missing has many names."""
    kind = column.dtype.kind if column.dtype.kind in "Mf" else "-"
    is_missing = column.isna()
    return [
        f"{kind}:missing" if gone else f"{kind}:{cell!r}"
        for cell, gone in zip(column, is_missing, strict=True)
    ]


class Echo(mlflow.pyfunc.PythonModel):
    """Answers what each cell of a row is, with bars between."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[str]:
        shown = [
            show(model_input[name]) if name in model_input else ["-"] * len(model_input) for name in COLUMNS
        ]
        return ["|".join(row) for row in zip(*shown, strict=True)]


def log_echo(name: str) -> Any:
    """Logs it; every column may be left out."""
    signature = ModelSignature(
        inputs=Schema([ColSpec(kind, column, required=False) for column, kind in COLUMNS.items()])
    )
    return mlflow.pyfunc.log_model(
        python_model=Echo(), name=name, registered_model_name=name, **REQUIREMENTS, signature=signature
    )


def echo_registry(folder: Path) -> str:
    """Makes a registry of a test's own with the model as `echo@production`; returns its URI."""
    made = once("echo", lambda shared: prepare_all(fill_registry(shared, {"echo": log_echo})))
    return copy_registry(made, folder)
