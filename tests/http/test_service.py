"""A real service with two workers: BentoML's own client, sockets, and metrics of several processes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bentoml
import mlflow
import numpy as np
import pytest

from tests.http.messages import refused
from tests.support.environment import tracking, wait_until
from tests.support.models import frame
from tests.support.services import Service, running_service


@pytest.fixture(scope="module")
def service(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("http")
    environment = {
        "MLFLOW_TRACKING_URI": registry_uri,
        "SERVING_MODEL_NAME": "cancer",
        "SERVING_WORKERS": "2",
        "SERVING_MAX_BODY_MB": "1",
        "SERVING_MAX_ROWS": "1000",
    }
    with running_service(folder, **environment) as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def own(registry_uri: str) -> Any:
    with tracking(registry_uri):
        return mlflow.sklearn.load_model("models:/cancer@production")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return frame("cancer").to_dict("records")


def test_bentoml_client_calls_both_apis(service: Service, own: Any, rows: Any) -> None:
    expected = own.predict_proba(frame("cancer").head(4))
    with bentoml.SyncHTTPClient(service.url) as client:
        answer = client.predict(instances=rows[:4])
        got = [list(entry["probabilities"].values()) for entry in answer["predictions"]]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        matrix = frame("cancer").head(4).to_numpy()
        np.testing.assert_allclose(client.predict_batch(matrix.tolist()), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(client.predict_batch(matrix), expected, rtol=0, atol=1e-12)


def test_schema_that_bentomls_client_reads_has_both_apis(service: Service) -> None:
    routes = {route["name"]: route for route in service.http.get("/schema.json").json()["routes"]}
    assert set(routes) == {"predict", "predict_batch"}
    assert routes["predict"]["input"]["required"] == ["instances"]


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/healthz", "/v1/models", "/v1/drift", "/metrics", "/docs.json", "/"]
)
def test_pages_answer_get_and_head_only(service: Service, path: str) -> None:
    assert service.http.get(path).status_code == 200
    head = service.http.head(path)
    assert head.status_code == 200
    assert head.content == b""
    error = refused(service.http.post(path, content=b"{}"), 405, "method_not_allowed")
    assert "GET" in error["message"]


def test_drift_adds_up_over_the_workers(service: Service) -> None:
    many = frame("cancer").head(400)
    before = metric(service, "model_feature_bin_total", feature="mean radius", bin="missing")

    def call(position: int) -> None:
        rows = many.iloc[position : position + 20].to_dict("records")
        assert service.http.post("/v1/predict", json={"instances": rows}).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(0, len(many), 20)))

    def drift() -> dict[str, Any] | None:
        (model,) = service.http.get("/v1/drift").json()["models"]
        return dict(model) if model["rows"] >= 400 else None

    now = wait_until(drift, 5, "every worker has counted its rows")
    assert (now["name"], now["version"], now["role"]) == ("cancer", "1", "champion")
    radius = next(one for one in now["features"] if one["feature"] == "mean radius")
    assert radius["rows"] == now["rows"]
    lines = [
        line
        for line in service.http.get("/metrics").text.splitlines()
        if line.startswith("model_feature_bin_total{") and 'feature="mean radius"' in line
    ]
    assert sum(float(line.rpartition(" ")[2]) for line in lines) == now["rows"]
    assert before == 0
    assert metric(service, "model_prediction_score_count", model_name="cancer") == now["rows"]


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_the_limit(service: Service, chunked: bool) -> None:
    body = b'{"instances": [' + b" " * 3_000_000
    content = iter([body[i : i + 65536] for i in range(0, len(body), 65536)]) if chunked else body
    response = service.http.post("/v1/predict", content=content, headers={"content-type": "application/json"})
    assert "1000000 bytes" in refused(response, 413, "payload_too_large")["message"]
    assert service.http.get("/livez").status_code == 200


def metric(service: Service, name: str, **labels: str) -> float:
    """The value of a series; 0 where it is not there."""
    for line in service.http.get("/metrics").text.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(
            f'{k}="{v}"' in line for k, v in labels.items()
        ):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_metrics_add_up_over_the_workers(service: Service, own: Any, rows: Any) -> None:
    names = {"model_name": "cancer", "model_version": "1"}

    def counted() -> dict[str, float]:
        return {
            "rows": metric(service, "model_predictions_total", **names),
            "requests": metric(service, "model_prediction_latency_seconds_count", **names),
            "class": metric(service, "model_predicted_class_total", predicted_class="0", **names),
            "errors": metric(service, "model_prediction_errors_total", error_type="invalid_input", **names),
            "active": metric(service, "model_active_requests"),
            "ready": metric(service, "model_ready"),
            "loaded": metric(service, "model_info", runtime="compiled", **names),
        }

    def call(position: int) -> None:
        # A connection each, so that both workers get some.
        for row, status in ((rows[position], 200), ({}, 422)):
            answer = service.ask_anew("POST", "/v1/predict", json={"instances": [row]})
            assert answer.status_code == status

    for _ in range(20):
        service.ask_anew("GET", "/metrics")  # whoever is asked writes down what others have asked it before
    before = counted()
    added = {
        "rows": 40,
        "requests": 40,
        "class": int((own.predict(frame("cancer"))[:40] == 0).sum()),
        "errors": 40,
    }
    expected = {"active": 0, "ready": 1, "loaded": 1} | {name: before[name] + n for name, n in added.items()}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(40)))
    # Each worker writes down what it counted several times a second.
    wait_until(lambda: counted() == expected, 20, str(expected))
