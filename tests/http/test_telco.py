"""From the command of the README to a real `bentoml serve`: all rows of the Telco file get the model's own numbers."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from serving.errors import ModelRefused
from serving.model import hook
from serving.prepare.build import prepare
from serving.prepare.registry.lookup import look_up
from serving.settings import Settings
from tests.http.messages import ARROW, arrow, probabilities, to_instances
from tests.http.telco import needs_telco, telco_registry
from tests.support.environment import TELCO, tracking
from tests.support.services import Service, running_service

pytestmark = needs_telco

TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return telco_registry(tmp_path_factory.mktemp("telco"))


@pytest.fixture(scope="module")
def telco(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Any, pd.DataFrame]]:
    """The service, the model as MLflow loads it, and all raw rows without the target."""
    with tracking(uri):
        model = mlflow.sklearn.load_model("models:/telco@production")
    rows = pd.read_csv(TELCO).drop(columns="Churn")
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, MLFLOW_TRACKING_URI=uri, SERVING_MODEL_NAME="telco") as service:
        yield service.wait_ready(), model, rows


def test_all_rows_blanks_included(telco: Any) -> None:
    service, model, rows = telco
    assert (rows["TotalCharges"].str.strip() == "").sum() == 11
    assert len(rows) == 7043
    answer = service.predict(to_instances(rows))
    np.testing.assert_allclose(probabilities(answer), model.predict_proba(rows), rtol=0, atol=TOLERANCE)
    assert [entry["label"] for entry in answer["predictions"]] == model.predict(rows).tolist()


def test_the_forest_is_compiled_whole(telco: Any) -> None:
    (described,) = telco[0].http.get("/v1/models").json()["models"]
    assert (described["runtime"], described["native_reason"]) == ("compiled", None)
    assert described["parity"]["rows"] >= 10_000
    assert described["parity"]["max_abs_difference"] <= TOLERANCE


def test_a_row_alone_gets_what_it_gets_among_others(telco: Any) -> None:
    service, model, rows = telco
    some = rows[rows["tenure"].isin([0, 72])].head(30)
    alone = [probabilities(service.predict([instance]))[0] for instance in to_instances(some)]
    np.testing.assert_allclose(alone, model.predict_proba(some), rtol=0, atol=TOLERANCE)


def test_without_its_identifier_and_in_another_order(telco: Any) -> None:
    service, model, rows = telco
    fewer = rows.drop(columns="customerID")[sorted(set(rows.columns) - {"customerID"})].head(200)
    got = probabilities(service.predict(to_instances(fewer)))
    np.testing.assert_allclose(got, model.predict_proba(rows.head(200)), rtol=0, atol=TOLERANCE)


def test_as_arrow_and_through_bentomls_client(telco: Any) -> None:
    service, model, rows = telco
    expected = model.predict_proba(rows)
    content = arrow(pa.Table.from_pandas(rows, preserve_index=False))
    response = service.http.post("/v1/predict_batch", content=content, headers={"content-type": ARROW})
    assert response.status_code == 200, response.text
    answer = pa.ipc.open_stream(response.content).read_all()
    assert answer.column_names == [str(label) for label in model.classes_]
    for position, name in enumerate(answer.column_names):
        np.testing.assert_allclose(answer[name].to_numpy(), expected[:, position], rtol=0, atol=TOLERANCE)
    with bentoml.SyncHTTPClient(service.url) as client:
        got = client.predict_batch(rows.head(100).to_numpy())
    np.testing.assert_allclose(got, expected[:100], rtol=0, atol=TOLERANCE)


def test_text_that_is_no_amount_is_refused_without_repeating_it(telco: Any) -> None:
    service, _, rows = telco
    instance = {**to_instances(rows.head(1))[0], "TotalCharges": "lots of money"}
    response = service.http.post("/v1/predict", json={"instances": [instance]})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "model_refused_input"
    assert "lots of money" not in response.text


@pytest.mark.parametrize(
    ("mismatch", "allow_pickle", "is_refused"),
    [("refuse", True, True), ("warn", False, True), ("warn", True, False)],
)
def test_a_model_of_another_preprocessing_is_refused_or_warned_about(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mismatch: str,
    allow_pickle: bool,
    is_refused: bool,
) -> None:
    """The registered model is the same; the `preprocessing.py` beside the service is not."""
    other = tmp_path / "preprocessing.py"
    other.write_text("def preprocess(rows): return rows * 2\n")
    monkeypatch.setattr(hook.preprocessing_digest, "__defaults__", (other,))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    settings = Settings(
        MLFLOW_TRACKING_URI=uri,
        model_name="telco",
        preprocessing_mismatch=mismatch,
        allow_pickle=allow_pickle,
    )
    wanted = look_up(settings)
    assert wanted is not None
    with tracking(uri), caplog.at_level(logging.WARNING):
        if is_refused:
            with pytest.raises(ModelRefused, match=r"trained with another preprocessing\.py"):
                prepare(wanted.champion, settings)
            return
        prepared = prepare(wanted.champion, settings)
    assert "trained with another preprocessing.py" in caplog.text
    assert prepared.tag.startswith("telco:1-")
