"""Real data, a real MLflow store and a real `bentoml serve`: the served numbers are the model's own."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from tests.support.environment import ROOT, TELCO, clean_environment, tracking
from tests.support.models import frame
from tests.support.services import Service, running_service

TOLERANCE = 1e-12

needs_telco = pytest.mark.skipif(not TELCO.exists(), reason=f"the Telco file is not at {TELCO}")


def to_instances(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: a missing value is null."""
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def probabilities(answer: dict[str, Any]) -> np.ndarray:
    return np.array([list(entry["probabilities"].values()) for entry in answer["predictions"]])


@pytest.fixture(scope="module")
def telco(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Any, pd.DataFrame]]:
    """The service, the model as MLflow loads it, and all raw rows without the target."""
    folder = tmp_path_factory.mktemp("telco")
    uri = f"sqlite:///{folder}/mlflow.db"
    command = ["scripts/train.py", "--data", str(TELCO), "--target", "Churn", "--name", "telco", "--promote"]
    # Run where the registry is: the artifacts land beside it.
    subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1:]],
        env=clean_environment() | {"MLFLOW_TRACKING_URI": uri},
        cwd=folder,
        check=True,
    )
    with tracking(uri):
        model = mlflow.sklearn.load_model("models:/telco@production")
    rows = pd.read_csv(TELCO).drop(columns="Churn")
    with running_service(folder, MLFLOW_TRACKING_URI=uri, SERVING_MODEL_NAME="telco") as service:
        service.registry = uri
        yield service.wait_ready(), model, rows


@needs_telco
def test_all_telco_rows_blanks_included(telco: Any) -> None:
    service, model, rows = telco
    assert (rows["TotalCharges"].str.strip() == "").sum() == 11
    assert len(rows) == 7043
    answer = service.predict(to_instances(rows))
    np.testing.assert_allclose(probabilities(answer), model.predict_proba(rows), rtol=0, atol=TOLERANCE)
    assert [entry["label"] for entry in answer["predictions"]] == model.predict(rows).tolist()


@needs_telco
def test_telco_row_alone_gives_what_it_gives_among_others(telco: Any) -> None:
    service, model, rows = telco
    some = rows[rows["tenure"].isin([0, 72])].head(30)
    alone = [probabilities(service.predict([instance]))[0] for instance in to_instances(some)]
    np.testing.assert_allclose(alone, model.predict_proba(some), rtol=0, atol=TOLERANCE)


@needs_telco
def test_telco_without_its_identifier_and_in_another_order(telco: Any) -> None:
    service, model, rows = telco
    fewer = rows.drop(columns="customerID")[sorted(set(rows.columns) - {"customerID"})].head(200)
    got = probabilities(service.predict(to_instances(fewer)))
    np.testing.assert_allclose(got, model.predict_proba(rows.head(200)), rtol=0, atol=TOLERANCE)


@needs_telco
def test_telco_as_arrow_and_through_bentomls_client(telco: Any) -> None:
    service, model, rows = telco
    expected = model.predict_proba(rows)
    out = pa.BufferOutputStream()
    table = pa.Table.from_pandas(rows, preserve_index=False)
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    media = "application/vnd.apache.arrow.stream"
    content = out.getvalue().to_pybytes()
    response = service.http.post("/v1/predict_batch", content=content, headers={"content-type": media})
    assert response.status_code == 200, response.text
    answer = pa.ipc.open_stream(response.content).read_all()
    assert answer.column_names == [str(label) for label in model.classes_]
    for position, name in enumerate(answer.column_names):
        np.testing.assert_allclose(answer[name].to_numpy(), expected[:, position], rtol=0, atol=TOLERANCE)
    with bentoml.SyncHTTPClient(service.url) as client:
        got = client.predict_batch(rows.head(100).to_numpy())
    np.testing.assert_allclose(got, expected[:100], rtol=0, atol=TOLERANCE)


@needs_telco
def test_text_that_is_no_amount_is_refused_without_repeating_it(telco: Any) -> None:
    service, _, rows = telco
    instance = {**to_instances(rows.head(1))[0], "TotalCharges": "lots of money"}
    response = service.http.post("/v1/predict", json={"instances": [instance]})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "model_refused_input"
    assert "lots of money" not in response.text


@needs_telco
def test_model_of_another_preprocessing_is_refused_or_warned_about(telco: Any, tmp_path: Path) -> None:
    """The registered model is the same; the `preprocessing.py` beside the service is not."""
    uri = telco[0].registry
    code = (
        "import serving.model.hook as hook, pathlib, sys\n"
        f"hook.PREPROCESSING_FILE = pathlib.Path({str(tmp_path / 'preprocessing.py')!r})\n"
        "hook.preprocessing_digest.__defaults__ = (hook.PREPROCESSING_FILE,)\n"
        "from serving.prepare.__main__ import main\n"
        "from serving.prepare.request import PrepareRequest\n"
        "from serving.prepare.registry.lookup import look_up\n"
        "from serving.settings import load_settings\n"
        "import msgspec\n"
        "request = msgspec.json.encode(PrepareRequest(look_up(load_settings()).champion, None)).decode()\n"
        "sys.exit(main(pathlib.Path(sys.argv[1]), request))"
    )
    (tmp_path / "preprocessing.py").write_text("def preprocess(rows): return rows * 2\n")
    environment = clean_environment() | {
        "MLFLOW_TRACKING_URI": uri,
        "SERVING_MODEL_NAME": "telco",
        "BENTOML_HOME": str(tmp_path / "bentoml"),
    }
    command = [sys.executable, "-c", code, str(tmp_path / "outcome.json")]
    subprocess.run(command, cwd=ROOT, env=environment, check=False)
    assert "trained with another preprocessing.py" in (tmp_path / "outcome.json").read_text()
    environment["SERVING_PREPROCESSING_MISMATCH"] = "warn"
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert "trained with another preprocessing.py" in done.stderr
    assert '"tag":"telco:1-' in (tmp_path / "outcome.json").read_text()


@pytest.mark.parametrize("name", ["wine", "iris"])
def test_classifiers(serve: Callable[..., Service], registry: str, store: Path, name: str) -> None:
    model, rows = mlflow.sklearn.load_model(f"models:/{name}@production"), frame(name)
    service = serve(
        MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME=name, BENTOML_HOME=str(store)
    ).wait_ready()
    answer = service.predict(to_instances(rows))
    np.testing.assert_allclose(probabilities(answer), model.predict_proba(rows), rtol=0, atol=TOLERANCE)
    assert [entry["label"] for entry in answer["predictions"]] == model.predict(rows).tolist()


def test_digits_as_a_tensor(serve: Callable[..., Service], registry: str, store: Path) -> None:
    X = load_digits().data
    expected = mlflow.sklearn.load_model("models:/digits@production").predict_proba(X)
    service = serve(
        MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="digits", BENTOML_HOME=str(store)
    ).wait_ready()
    np.testing.assert_allclose(probabilities(service.predict(X.tolist())), expected, rtol=0, atol=TOLERANCE)
    body = io.BytesIO()
    np.save(body, X)
    headers = {"content-type": "application/x-npy"}
    response = service.http.post("/v1/predict_batch", content=body.getvalue(), headers=headers)
    np.testing.assert_allclose(np.load(io.BytesIO(response.content)), expected, rtol=0, atol=TOLERANCE)


def test_diabetes_as_a_regression(serve: Callable[..., Service], registry: str, store: Path) -> None:
    rows = frame("diabetes")
    expected = mlflow.sklearn.load_model("models:/diabetes@production").predict(rows)
    service = serve(
        MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="diabetes", BENTOML_HOME=str(store)
    ).wait_ready()
    got = [entry["value"] for entry in service.predict(to_instances(rows))["predictions"]]
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    assert "model_predicted_class_total{" not in service.http.get("/metrics").text


def test_model_that_raises_on_valid_rows(serve: Callable[..., Service], registry: str, store: Path) -> None:
    service = serve(
        MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="strict-categories", BENTOML_HOME=str(store)
    ).wait_ready()
    instances = [{"colour": "crimson-marker", "size": 1.0}]
    response = service.http.post("/v1/predict", json={"instances": instances})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "model_refused_input"
    assert "crimson-marker" not in response.text
    assert service.predict([{"colour": "red", "size": 1.0}])["predictions"][0]["label"] in (0, 1)
