"""The endpoints beside predictions, and what every answer has: request ids, methods, metrics."""

import re
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest

from tests.http.in_process import Application, running_application
from tests.http.messages import refused
from tests.support.models import frame


@pytest.fixture(scope="module")
def service(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(tmp_path_factory.mktemp("worker"), registry_uri, "cancer") as running:
        yield running


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return frame("cancer").to_dict("records")


def test_request_id_of_the_caller_comes_back(service: Application, rows: Any) -> None:
    headers = {"x-request-id": "order-17"}
    response = service.post("/v1/predict", json={"instances": rows[:1]}, headers=headers)
    assert response.headers["x-request-id"] == response.json()["request_id"] == "order-17"


def test_request_id_that_could_forge_a_log_line_is_replaced(service: Application, rows: Any) -> None:
    headers = {"x-request-id": "a b\tc" * 50}
    response = service.post("/v1/predict", json={"instances": rows[:1]}, headers=headers)
    assert re.fullmatch(r"[0-9a-f]{32}", response.json()["request_id"])


def test_models_says_what_is_loaded(service: Application, registry_uri: str) -> None:
    (model,) = service.get("/v1/models").json()["models"]
    version = mlflow.MlflowClient(registry_uri).get_model_version("cancer", "1")
    assert (model["name"], model["version"], model["run_id"]) == ("cancer", "1", version.run_id)
    assert (model["runtime"], model["native_reason"]) == ("compiled", None)
    assert model["parity"]["rows"] >= 10_000
    assert model["parity"]["max_abs_difference"] <= 1e-6
    assert model["batching"]["rows_are_independent"] is True
    assert model["batching"]["inline_rows"] >= 1
    assert set(model["batching"]["call_ms"]) == {"1", "8", "64", "512"}
    assert len(model["digest"]) == 64
    assert [column["name"] for column in model["signature"]["inputs"]] == frame("cancer").columns.tolist()


def test_unknown_route_and_wrong_method(service: Application) -> None:
    error = refused(service.get("/v1/predictions"), 404, "not_found")
    assert "/v1/predict" in error["message"]
    response = service.get("/v1/predict")
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_scanning_for_paths_makes_no_new_series(service: Application) -> None:
    before = {line.rpartition(" ")[0] for line in service.get("/metrics").text.splitlines()}
    for position in range(50):
        service.get(f"/admin/{position}.php")
        service.request(f"M{position}", "/v1/models")
    after = {line.rpartition(" ")[0] for line in service.get("/metrics").text.splitlines()}
    assert {line for line in after - before if "method_not_allowed" not in line} == set()
