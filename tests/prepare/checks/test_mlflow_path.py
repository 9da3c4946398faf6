"""`serving.prepare.checks.mlflow_path`: a decoder that changes a cell is found, and MLflow's own quirks are no matter."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from serving.codecs.json import JsonDecoder
from serving.errors import ModelRefused
from serving.model.schema import NONE, Inputs, Schema, parse_schema
from serving.prepare.checks import mlflow_path
from serving.prepare.checks.mlflow_path import check_mlflow_agrees
from serving.runtime import Output
from serving.runtime.native import NativeRuntime, adapter_of

ROWS = 40


def prepared(model: Any, rows: Any, y: Any, nulls: dict[str, str] | None = None) -> tuple[Any, Schema, str]:
    signature = str(infer_signature(rows).to_dict()["inputs"])
    schema = parse_schema(signature, None, nulls)
    return NativeRuntime(adapter_of(model.fit(rows, y)), schema), schema, signature


def cities() -> tuple[pd.DataFrame, list[bool]]:
    cells = ["Rome", "Oslo", None, "Bern"] * (ROWS // 4)
    return pd.DataFrame({"city": pd.Series(cells, dtype=object)}), [c in (None, "Rome") for c in cells]


def one_hot() -> Any:
    return make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())


NULL_AND_ROME = [{"city": None}, {"city": "Rome"}]


def test_the_services_own_path_agrees():
    runtime, schema, signature = prepared(one_hot(), *cities(), {"city": NONE})
    # All together, two alone, and null alone and beside others.
    assert check_mlflow_agrees(runtime, runtime, schema, signature, NULL_AND_ROME) == 5


def test_a_null_that_is_decoded_as_something_else_is_found(monkeypatch: pytest.MonkeyPatch):
    runtime, schema, signature = prepared(one_hot(), *cities(), {"city": NONE})

    class Wrong(JsonDecoder):
        def predict(self, body: bytes) -> tuple[Inputs, dict[str, Any]]:
            inputs, params = super().predict(body)
            (cells,) = inputs.columns
            return Inputs((np.where(cells == None, np.nan, cells),), inputs.n_rows), params  # noqa: E711

    monkeypatch.setattr(mlflow_path, "JsonDecoder", Wrong)
    with pytest.raises(ModelRefused, match="MLflow's own path from JSON to the model"):
        check_mlflow_agrees(runtime, runtime, schema, signature, NULL_AND_ROME)


def test_a_column_that_is_decoded_into_the_place_of_another_is_found(monkeypatch: pytest.MonkeyPatch):
    rows = pd.DataFrame({"a": np.linspace(0, 1, ROWS), "b": np.linspace(5, 2, ROWS)})
    runtime, schema, signature = prepared(LinearRegression(), rows, rows["a"] * 3 - rows["b"])
    instances = rows.head(5).to_dict("records")
    assert check_mlflow_agrees(runtime, runtime, schema, signature, instances) > 5

    class Wrong(JsonDecoder):
        def predict(self, body: bytes) -> tuple[Inputs, dict[str, Any]]:
            inputs, params = super().predict(body)
            return Inputs(inputs.columns[::-1], inputs.n_rows), params

    monkeypatch.setattr(mlflow_path, "JsonDecoder", Wrong)
    with pytest.raises(ModelRefused, match="the sample"):
        check_mlflow_agrees(runtime, runtime, schema, signature, instances)


def test_a_runtime_that_answers_otherwise_is_found():
    rows, y = cities()
    runtime, schema, signature = prepared(one_hot(), rows, y, {"city": NONE})

    class Sloppy:
        def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:
            output = runtime.predict(inputs, params)
            return Output(output.labels, output.probabilities + 2e-6)

    with pytest.raises(ModelRefused):
        check_mlflow_agrees(Sloppy(), runtime, schema, signature, NULL_AND_ROME)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "uint8"])
def test_arrays_are_compared_too(dtype: str):
    rows = np.arange(ROWS * 2).reshape(ROWS, 2).astype(dtype)
    runtime, schema, signature = prepared(RandomForestClassifier(3, random_state=0), rows, rows[:, 0] > ROWS)
    assert check_mlflow_agrees(runtime, runtime, schema, signature, rows[:4].tolist()) == 5


def test_of_a_model_that_draws_lots_nothing_is_said():
    class Lots(LinearRegression):
        def predict(self, X: Any) -> Any:
            return np.random.default_rng().random(len(X))

    rows = pd.DataFrame({"a": np.linspace(0, 1, ROWS)})
    runtime, schema, signature = prepared(Lots(), rows, rows["a"])
    assert check_mlflow_agrees(runtime, runtime, schema, signature, rows.head(3).to_dict("records")) == 0


def test_rows_that_mlflow_refuses_are_not_compared():
    """MLflow makes no integer of null, and the service does where the column is optional."""
    rows = pd.DataFrame({"a": np.arange(ROWS), "b": np.arange(ROWS) / 7})
    runtime, _, signature = prepared(LinearRegression(), rows, rows["a"])
    signature = signature.replace('"required": true', '"required": false')
    assert (
        check_mlflow_agrees(runtime, runtime, parse_schema(signature), signature, [{"a": None, "b": 1.0}])
        == 0
    )
