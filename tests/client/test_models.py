"""Models of every task through the client, against the numbers of MLflow and of the models themselves."""

from collections.abc import Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from serving.client import Client, Refused
from tests.client.bridge import Bridge
from tests.http.in_process import running_application
from tests.support.environment import tracking
from tests.support.models import frame

TOLERANCE = 1e-12


@pytest.fixture
def ask(registry_uri: str, tmp_path: Any) -> Iterator[Any]:
    """Returns a model as MLflow loads it, itself, and a client of what serves it."""
    running = []

    def start(name: str, flavor: str = "sklearn", **environment: str) -> tuple[Any, Any, Client]:
        with tracking(registry_uri):
            through_mlflow = mlflow.pyfunc.load_model(f"models:/{name}@production")
            itself = None if flavor == "pyfunc" else mlflow.sklearn.load_model(f"models:/{name}@production")
        serving = running_application(tmp_path, registry_uri, name, **environment)
        running.append(serving)
        return through_mlflow, itself, Client("http://worker", transport=Bridge(serving.__enter__()))

    yield start
    for serving in running:
        serving.__exit__(None, None, None)


@pytest.mark.parametrize("name", ["cancer", "iris"])
def test_a_classifier(ask: Any, name: str) -> None:
    rows = frame(name).set_index(pd.RangeIndex(7, 7 + len(frame(name))))
    through_mlflow, itself, client = ask(name)
    expected = itself.predict_proba(rows)
    answer = client.predict(rows)
    classes = [f"probability_{label}" for label in itself.classes_]
    assert list(answer.columns) == ["prediction", *classes]
    assert answer.index.equals(rows.index)
    assert answer["prediction"].tolist() == list(through_mlflow.predict(rows))
    np.testing.assert_allclose(answer[classes], expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(client.predict_batch(rows), expected, rtol=0, atol=TOLERANCE)
    matrix = rows.to_numpy()
    for plain in (matrix, matrix.tolist(), matrix.astype(object), list(matrix)):
        np.testing.assert_allclose(client.predict_batch(plain), expected, rtol=0, atol=TOLERANCE)


def test_a_classifier_without_probabilities(ask: Any) -> None:
    through_mlflow, _, client = ask("no-probabilities")
    expected = through_mlflow.predict(frame("wine"))
    answer = client.predict(frame("wine"))
    assert list(answer.columns) == ["prediction"]
    np.testing.assert_array_equal(answer["prediction"], expected)
    np.testing.assert_array_equal(client.predict_batch(frame("wine")), expected)


def test_a_regression(ask: Any) -> None:
    through_mlflow, _, client = ask("diabetes")
    expected = through_mlflow.predict(frame("diabetes"))
    answer = client.predict(frame("diabetes"))
    assert list(answer.columns) == ["prediction"]
    np.testing.assert_allclose(answer["prediction"], expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(client.predict_batch(frame("diabetes")), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "rows", "n_outputs"), [("multi-regression", "diabetes", 3), ("multi-classification", "wine", 2)]
)
def test_several_outputs(ask: Any, name: str, rows: str, n_outputs: int) -> None:
    through_mlflow, _, client = ask(name)
    expected = through_mlflow.predict(frame(rows))
    answer = client.predict(frame(rows))
    assert list(answer.columns) == [f"prediction_{n}" for n in range(n_outputs)]
    np.testing.assert_allclose(answer, expected, rtol=1e-12, atol=TOLERANCE)
    np.testing.assert_allclose(client.predict_batch(frame(rows)), expected, rtol=1e-12, atol=TOLERANCE)


def test_a_tensor(ask: Any) -> None:
    X = load_digits().data
    _, itself, client = ask("digits")
    expected = itself.predict_proba(X)
    answer = client.predict(X)
    got = [list(one["probabilities"].values()) for one in answer]
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    assert [one["label"] for one in answer] == itself.predict(X).tolist()
    for plain in (X, X.astype(np.float32), X.astype(np.longdouble), pd.DataFrame(X)):
        np.testing.assert_allclose(client.predict_batch(plain), expected, rtol=0, atol=TOLERANCE)


def test_parameters_and_an_answer_of_several_columns(ask: Any) -> None:
    rows = pd.DataFrame({"a": [1.0, -2.0], "b": [1, 1], "bonus": [None, 0.5]})
    through_mlflow, _, client = ask("custom pyfunc", "pyfunc", SERVING_ALLOW_PICKLE="true")
    expected = through_mlflow.predict(rows, params={"factor": 3.0})
    answer = client.predict(rows, params={"factor": np.float64(3)})
    assert answer["prediction_total"].tolist() == expected["total"].tolist()
    assert answer["prediction_sign"].tolist() == expected["sign"].tolist()
    with pytest.raises(TypeError, match=r"params: expected .*, got object"):
        client.predict(rows, params={"factor": object()})


def test_a_version_is_chosen_where_callers_may(ask: Any) -> None:
    rows = frame("wine").head(2)
    _, _, client = ask("wine", SERVING_ALLOW_VERSION_CHOICE="true")
    assert client.predict(rows, model_version=1).attrs["model"]["version"] == "1"
    with pytest.raises(Refused, match="404 version_not_found") as caught:
        client.predict_batch(rows, model_version="9")
    assert (caught.value.status, caught.value.code) == (404, "version_not_found")
    assert caught.value.request_id in str(caught.value)
