"""Frames whose columns are labelled with other things than text: `pd.DataFrame(array)` is the usual one."""

from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import msgspec
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.cluster import Birch
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from tests.support.served import answer, prepared

LABELS: dict[str, Any] = {
    "numbers in another order": [2, 0, 1],
    "booleans": [True, False],
    "levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]),
    # scikit-learn itself refuses labels of which only some are text.
    "numbers and text": [2, "a", 0.5],
}


def rows(labels: Any, n_rows: int = 120) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(n_rows, len(labels))), columns=labels)


def truth(frame: pd.DataFrame) -> np.ndarray:
    return (frame.iloc[:, 0] > frame.iloc[:, 1]).to_numpy().astype(int)


@pytest.mark.parametrize("labels", ["numbers in another order", "booleans", "levels"])
def test_a_pipeline_is_compiled_and_asked_by_text(labels: str, tmp_path: Path) -> None:
    frame = rows(LABELS[labels])
    steps = make_column_transformer((StandardScaler(), [1]), ("passthrough", [0]))
    model = make_pipeline(steps, LogisticRegression()).fit(frame, truth(frame))
    served = prepared(tmp_path, model, frame)
    assert served.manifest.runtime == "compiled", served.manifest.native_reason
    got = answer(served, frame)
    assert got.probabilities is not None
    np.testing.assert_allclose(got.probabilities, model.predict_proba(frame), rtol=0, atol=1e-12)
    assert served.schema.names == [str(label) for label in frame.columns]
    assert list(msgspec.json.decode(served.examples)["instances"][0]) == served.schema.names


def named_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """A step of one's own that knows the frame's own labels."""
    return frame[[2, 0]]


def test_a_step_that_stays_native_sees_the_labels_of_the_fit(tmp_path: Path) -> None:
    frame = rows([2, 0, 1])
    model = make_pipeline(FunctionTransformer(named_columns), LogisticRegression()).fit(frame, truth(frame))
    served = prepared(tmp_path, model, frame)
    assert served.manifest.runtime == "mixed"
    np.testing.assert_array_equal(answer(served, frame).probabilities, model.predict_proba(frame))  # type: ignore[arg-type]


def test_a_native_model_sees_the_labels_of_the_fit(tmp_path: Path) -> None:
    frame = rows([2, 0, 1])
    model = make_pipeline(FunctionTransformer(named_columns), Birch(n_clusters=2)).fit(frame)
    served = prepared(tmp_path, model, frame)
    assert served.manifest.runtime == "native"
    np.testing.assert_array_equal(answer(served, frame).values, model.predict(frame))  # type: ignore[arg-type]


class Difference(mlflow.pyfunc.PythonModel):
    """A model of one's own."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        return model_input.iloc[:, 0] - model_input.iloc[:, 1]


@pytest.mark.parametrize("labels", ["numbers in another order", "booleans", "levels"])
def test_a_pyfunc_gets_the_columns_in_the_order_of_the_fit(labels: str, tmp_path: Path) -> None:
    frame = rows(LABELS[labels])
    served = prepared(tmp_path, Difference(), frame, "pyfunc", input_example=None)
    np.testing.assert_array_equal(answer(served, frame).values, frame.iloc[:, 0] - frame.iloc[:, 1])  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", ["numbers and text", "levels"])
def test_boosters(labels: str, tmp_path: Path) -> None:
    frame = rows(LABELS[labels])
    matrix = xgboost.DMatrix(frame, truth(frame))
    model = xgboost.train({"objective": "binary:logistic", "nthread": 1}, matrix, 5)
    served = prepared(tmp_path / "xgboost", model, frame, "xgboost", model_format="json")
    assert served.manifest.runtime == "compiled", served.manifest.native_reason
    np.testing.assert_array_equal(answer(served, frame).probabilities[:, 1], model.predict(matrix))  # type: ignore[index]
    if labels == "levels":
        return  # LightGBM cannot be fitted on them
    other = lightgbm.LGBMRegressor(n_estimators=5, n_jobs=1, verbose=-1).fit(frame, frame.iloc[:, 0])
    served = prepared(tmp_path / "lightgbm", other, frame, "lightgbm")
    assert served.manifest.runtime == "compiled", served.manifest.native_reason
    np.testing.assert_array_equal(answer(served, frame).values, other.predict(frame))  # type: ignore[arg-type]


def test_an_example_is_made_of_the_categories_that_a_position_knows(tmp_path: Path) -> None:
    frame = rows([0, 1])
    frame.insert(0, 2, np.random.default_rng(0).choice(["red", "blue"], len(frame)))
    steps = make_column_transformer((OneHotEncoder(), [0]), remainder=StandardScaler())
    model = make_pipeline(steps, LogisticRegression()).fit(frame, np.arange(len(frame)) % 2)
    served = prepared(tmp_path, model, frame, input_example=None)
    (instance,) = msgspec.json.decode(served.examples)["instances"]
    assert instance["2"] == "blue"
