"""`serving.runtime.native`: what a model is handed."""

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec
from mlflow.types import Schema as MlflowSchema

from serving.codecs.json import JsonDecoder
from serving.model.schema import NONE, Column, Form, Inputs, Kind, Schema, Type, parse_schema
from serving.runtime.native import inputs_to_frame, load_native

COLUMNS = [
    ColSpec("double", "x1"),
    *(ColSpec(kind, kind, required=False) for kind in ("double", "float", "string", "datetime")),
]


class NamesColumns(mlflow.pyfunc.PythonModel):
    """Says which columns it got, and of which dtypes."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[str]:
        text = ",".join(f"{name}:{dtype}" for name, dtype in model_input.dtypes.items())
        return [text] * len(model_input)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pyfunc") / "mlflow"
    mlflow.pyfunc.save_model(
        folder,
        python_model=NamesColumns(),
        signature=ModelSignature(inputs=MlflowSchema([*COLUMNS, ColSpec("long", "n", required=False)])),
        pip_requirements=[],
    )
    return folder


def test_a_pyfunc_gets_its_optional_columns_whatever_stands_in_the_rows_beside(folder: Path):
    schema = parse_schema(mlflow.pyfunc.load_model(folder).metadata.signature.inputs.to_json())
    model = load_native(folder, schema, None)
    names = {"x1", "double", "float", "string", "datetime"}

    def columns(rows: list[dict[str, Any]]) -> set[str]:
        inputs, _ = JsonDecoder(schema, 10).predict(json_of(rows))
        values = model.predict(inputs, {}).values
        assert values is not None
        assert len({*values}) == 1
        return {part.split(":")[0] for part in str(values[0]).split(",")}

    null = {"x1": 1.0, "double": None, "string": None}
    whole = {"x1": 1.0, "double": 2.0, "float": 0.5, "string": "a", "datetime": "2024-05-01"}
    assert columns([null]) == columns([{"x1": 1.0}]) == columns([null, whole]) == columns([whole]) == names
    # MLflow takes no null for an integer, and a frame without the column.
    assert columns([null | {"n": None}]) == names
    assert columns([null | {"n": 3}]) == {*names, "n"}


def json_of(rows: list[dict[str, Any]]) -> bytes:
    import msgspec

    return msgspec.json.encode({"instances": rows})


@pytest.mark.parametrize("kind", [Kind.STRING, Kind.LONG, Kind.DOUBLE, Kind.BOOLEAN])
def test_a_column_of_objects_is_one_whatever_is_missing(kind: Kind):
    schema = Schema((Column("a", Type(kind), required=False, null=NONE),), Form.RECORD)
    cell = {Kind.STRING: "x", Kind.LONG: 7, Kind.DOUBLE: 0.5, Kind.BOOLEAN: True}[kind]
    for cells in ([cell], [cell, None], [None]):
        frame = inputs_to_frame(Inputs((np.array(cells, dtype=object),), len(cells)), schema)
        assert isinstance(frame, pd.DataFrame)
        assert frame["a"].dtype == object
        assert frame["a"].tolist() == cells
