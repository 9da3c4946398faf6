"""What the application answers for models of every kind on real data: the models' own numbers."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from tests.http.in_process import Application, running_application
from tests.http.messages import ARROW, NPY, arrow, npy, probabilities, to_instances
from tests.support.environment import tracking
from tests.support.models import frame

TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def cancer(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(tmp_path_factory.mktemp("worker"), registry_uri, "cancer") as running:
        yield running


@pytest.fixture
def apply(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Runs the application with a model of the registry."""
    return lambda name: running_application(tmp_path_factory.mktemp("worker"), registry_uri, name)


@pytest.fixture(scope="module")
def own(registry_uri: str) -> Callable[[str], Any]:
    """Loads a model of the registry as MLflow itself does."""

    def load(name: str) -> Any:
        with tracking(registry_uri):
            return mlflow.sklearn.load_model(f"models:/{name}@production")

    return load


@pytest.mark.parametrize("path", ["/v1/predict", "/predict"])
def test_predict_gives_the_models_own_numbers(cancer: Application, own: Any, path: str) -> None:
    model, rows = own("cancer"), frame("cancer")
    answer = cancer.post(path, json={"instances": to_instances(rows)}).json()
    np.testing.assert_allclose(probabilities(answer), model.predict_proba(rows), rtol=0, atol=TOLERANCE)
    assert answer["model"] == {"name": "cancer", "version": "1"}
    assert [entry["label"] for entry in answer["predictions"]] == model.predict(rows).tolist()


@pytest.mark.parametrize("path", ["/v1/predict_batch", "/predict_batch"])
def test_predict_batch_answers_in_the_media_type_it_came_in(cancer: Application, own: Any, path: str) -> None:
    table = frame("cancer")
    expected = own("cancer").predict_proba(table)
    response = cancer.post(path, json=table.to_numpy().tolist())
    np.testing.assert_allclose(response.json(), expected, rtol=0, atol=TOLERANCE)

    response = cancer.post(path, content=npy(table.to_numpy()), headers={"content-type": NPY})
    assert response.headers["content-type"] == NPY
    got = np.load(io.BytesIO(response.content), allow_pickle=False)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)

    body = arrow(pa.Table.from_pandas(table))
    response = cancer.post(path, content=body, headers={"content-type": ARROW})
    assert response.headers["content-type"] == ARROW
    answer = pa.ipc.open_stream(response.content).read_all()
    assert answer.column_names == ["0", "1"]
    np.testing.assert_allclose(answer["1"].to_numpy(), expected[:, 1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["wine", "iris"])
def test_classifiers(apply: Any, own: Any, name: str) -> None:
    model, rows = own(name), frame(name)
    with apply(name) as application:
        answer = application.predict(to_instances(rows))
    np.testing.assert_allclose(probabilities(answer), model.predict_proba(rows), rtol=0, atol=TOLERANCE)
    assert [entry["label"] for entry in answer["predictions"]] == model.predict(rows).tolist()


def test_digits_as_a_tensor(apply: Any, own: Any) -> None:
    X = load_digits().data
    expected = own("digits").predict_proba(X)
    with apply("digits") as application:
        answer = application.predict(X.tolist())
        response = application.post("/v1/predict_batch", content=npy(X), headers={"content-type": NPY})
    np.testing.assert_allclose(probabilities(answer), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(np.load(io.BytesIO(response.content)), expected, rtol=0, atol=TOLERANCE)


def test_diabetes_as_a_regression(apply: Any, own: Any) -> None:
    rows = frame("diabetes")
    with apply("diabetes") as application:
        answer = application.predict(to_instances(rows))
        metrics = application.get("/metrics").text
    got = [entry["value"] for entry in answer["predictions"]]
    np.testing.assert_allclose(got, own("diabetes").predict(rows), rtol=0, atol=TOLERANCE)
    assert 'model_predictions_total{model_name="diabetes"' in metrics
    assert 'model_predicted_class_total{model_name="diabetes"' not in metrics


def test_model_that_raises_on_valid_rows(apply: Any) -> None:
    with apply("strict-categories") as application:
        instances = [{"colour": "crimson-marker", "size": 1.0}]
        response = application.post("/v1/predict", json={"instances": instances})
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "model_refused_input"
        assert "crimson-marker" not in response.text
        assert application.predict([{"colour": "red", "size": 1.0}])["predictions"][0]["label"] in (0, 1)
