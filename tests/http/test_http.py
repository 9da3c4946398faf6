"""The endpoints of a real service with two workers, and every kind of bad input."""

import io
import json
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bentoml
import httpx
import mlflow
import numpy as np
import pyarrow as pa
import pytest

from tests.support.environment import tracking, wait_until
from tests.support.models import frame
from tests.support.services import Service, running_service

SECRET = "4242.424242"
"""A caller's value that no answer may repeat."""


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


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def arrow(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer that keeps to the form of errors."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    assert SECRET not in response.text
    assert "\n" not in body["error"]["message"]
    assert "Traceback" not in response.text
    return dict(body["error"])


def post(
    service: Service, body: Any, path: str = "/v1/predict", media: str = "application/json"
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.http.post(path, content=content, headers={"content-type": media})


@pytest.mark.parametrize("path", ["/v1/predict", "/predict"])
def test_predict_gives_the_models_own_numbers(service: Service, own: Any, rows: Any, path: str) -> None:
    answer = post(service, {"instances": rows}, path).json()
    got = [list(entry["probabilities"].values()) for entry in answer["predictions"]]
    np.testing.assert_allclose(got, own.predict_proba(frame("cancer")), rtol=0, atol=1e-12)
    assert answer["model"] == {"name": "cancer", "version": "1"}
    assert [entry["label"] for entry in answer["predictions"]] == own.predict(frame("cancer")).tolist()


@pytest.mark.parametrize("path", ["/v1/predict_batch", "/predict_batch"])
def test_predict_batch_answers_in_the_media_type_it_came_in(service: Service, own: Any, path: str) -> None:
    table = frame("cancer")
    expected = own.predict_proba(table)
    response = post(service, table.to_numpy().tolist(), path)
    np.testing.assert_allclose(response.json(), expected, rtol=0, atol=1e-12)

    response = post(service, npy(table.to_numpy()), path, "application/x-npy")
    assert response.headers["content-type"] == "application/x-npy"
    got = np.load(io.BytesIO(response.content), allow_pickle=False)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)

    media = "application/vnd.apache.arrow.stream"
    response = post(service, arrow(pa.Table.from_pandas(table)), path, media)
    assert response.headers["content-type"] == media
    answer = pa.ipc.open_stream(response.content).read_all()
    assert answer.column_names == ["0", "1"]
    np.testing.assert_allclose(answer["1"].to_numpy(), expected[:, 1], rtol=0, atol=1e-12)


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


def test_request_id_of_the_caller_comes_back(service: Service, rows: Any) -> None:
    headers = {"x-request-id": "order-17"}
    response = service.http.post("/v1/predict", json={"instances": rows[:1]}, headers=headers)
    assert response.headers["x-request-id"] == response.json()["request_id"] == "order-17"


def test_request_id_that_could_forge_a_log_line_is_replaced(service: Service, rows: Any) -> None:
    headers = {"x-request-id": "a b\tc" * 50}
    response = service.http.post("/v1/predict", json={"instances": rows[:1]}, headers=headers)
    assert re.fullmatch(r"[0-9a-f]{32}", response.json()["request_id"])


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/healthz", "/v1/models", "/metrics", "/docs.json", "/"]
)
def test_pages_answer_get_and_head_only(service: Service, path: str) -> None:
    assert service.http.get(path).status_code == 200
    head = service.http.head(path)
    assert head.status_code == 200
    assert head.content == b""
    error = refused(service.http.post(path, content=b"{}"), 405, "method_not_allowed")
    assert "GET" in error["message"]


def test_models_says_what_is_loaded(service: Service, registry_uri: str) -> None:
    (model,) = service.http.get("/v1/models").json()["models"]
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


# Bad input


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
@pytest.mark.parametrize("body", [b"", b"  \n "])
def test_empty_body(service: Service, path: str, body: bytes) -> None:
    assert "empty" in refused(post(service, body, path), 400, "malformed_body")["message"]


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
@pytest.mark.parametrize(
    "body", [b"{", b'{"instances": [', b"\xff\xfe", b"[" * 5000, b'{"a": 1,}', b"tenure=1"]
)
def test_broken_json(service: Service, path: str, body: bytes) -> None:
    refused(post(service, body, path), 400, "malformed_body")


@pytest.mark.parametrize(
    "body", [[], 1, "x", None, {}, {"instances": 1}, {"instances": {"a": 1}}, {"inputs": []}]
)
def test_json_of_the_wrong_shape(service: Service, body: Any) -> None:
    assert "instances" in refused(post(service, body), 422, "invalid_input")["message"]


@pytest.mark.parametrize("body", [{}, 1, "x", None, {"instances": []}])
def test_batch_json_of_the_wrong_shape(service: Service, body: Any) -> None:
    assert (
        "array of rows" in refused(post(service, body, "/v1/predict_batch"), 422, "invalid_input")["message"]
    )


def test_no_rows(service: Service) -> None:
    refused(post(service, {"instances": []}), 422, "invalid_input")
    refused(post(service, [], "/v1/predict_batch"), 422, "invalid_input")


def test_unknown_key_beside_instances(service: Service, rows: Any) -> None:
    error = refused(post(service, {"instances": rows[:1], "signature_name": SECRET}), 422, "invalid_input")
    assert error["details"][0]["column"] == "signature_name"


def test_one_wrong_cell_among_a_thousand_rows(service: Service, rows: Any) -> None:
    many = [dict(row) for row in (rows * 2)[:1000]]
    many[617]["mean area"] = SECRET
    error = refused(post(service, {"instances": many}), 422, "invalid_input")
    (detail,) = error["details"]
    assert (detail["row"], detail["column"], detail["got"]) == (617, "mean area", "string")
    assert detail["expected"].startswith("double")


def test_missing_and_extra_column(service: Service, rows: Any) -> None:
    row = dict(rows[0])
    del row["mean area"]
    row["mean arae"] = SECRET
    details = refused(post(service, {"instances": [row]}), 422, "invalid_input")["details"]
    assert {(d["column"], d["got"]) for d in details} == {("mean arae", "string"), ("mean area", "nothing")}


@pytest.mark.parametrize(
    ("cell", "got"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ('"1"', "string"),
        ("true", "boolean"),
        ("1e999", "number too large"),
    ],
)
def test_cell_that_is_no_number(service: Service, rows: Any, cell: str, got: str) -> None:
    body = json.dumps({"instances": [{**rows[0], "mean area": "@"}]}).replace('"@"', cell).encode()
    (detail,) = refused(post(service, body), 422, "invalid_input")["details"]
    assert (detail["row"], detail["column"], detail["got"]) == (0, "mean area", got)


def test_at_most_twenty_problems_are_listed(service: Service, rows: Any) -> None:
    many = [{**row, "mean area": SECRET} for row in rows[:100]]
    assert len(refused(post(service, {"instances": many}), 422, "invalid_input")["details"]) == 20


def test_npy_of_the_wrong_width(service: Service) -> None:
    body = npy(np.zeros((2, 29)))
    error = refused(post(service, body, "/v1/predict_batch", "application/x-npy"), 422, "invalid_input")
    assert "(n, 30)" in error["message"]


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_pickled_npy_is_never_unpickled(service: Service, tmp_path: Path) -> None:
    trace = tmp_path / "was-here"
    body = npy(np.array([[Bomb(trace)] * 30], dtype=object), allow_pickle=True)
    pickle.loads(pickle.dumps(Bomb(tmp_path / "proof")))
    assert (tmp_path / "proof").exists(), "the bomb does not work"
    error = refused(post(service, body, "/v1/predict_batch", "application/x-npy"), 400, "malformed_body")
    assert "never unpickled" in error["message"]
    assert not trace.exists()


def test_truncated_npy_and_arrow(service: Service) -> None:
    table = frame("cancer").head(5)
    for body, media in (
        (npy(table.to_numpy()), "application/x-npy"),
        (arrow(pa.Table.from_pandas(table)), "application/vnd.apache.arrow.stream"),
    ):
        for length in (1, 10, len(body) // 2, len(body) - 9):
            refused(post(service, body[:length], "/v1/predict_batch", media), 400, "malformed_body")


@pytest.mark.parametrize("media", ["text/csv", "application/vnd.bentoml+pickle", "multipart/form-data"])
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict_batch"])
def test_wrong_content_type(service: Service, rows: Any, path: str, media: str) -> None:
    error = refused(post(service, {"instances": rows[:1]}, path, media), 415, "unsupported_media_type")
    assert "application/json" in error["message"]


def test_unknown_route_and_wrong_method(service: Service) -> None:
    error = refused(service.http.get("/v1/predictions"), 404, "not_found")
    assert "/v1/predict" in error["message"]
    response = service.http.get("/v1/predict")
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_the_limit(service: Service, chunked: bool) -> None:
    body = b'{"instances": [' + b" " * 3_000_000
    content = iter([body[i : i + 65536] for i in range(0, len(body), 65536)]) if chunked else body
    response = service.http.post("/v1/predict", content=content, headers={"content-type": "application/json"})
    assert "1000000 bytes" in refused(response, 413, "payload_too_large")["message"]
    assert service.http.get("/livez").status_code == 200


def test_more_rows_than_the_limit(service: Service) -> None:
    thin = np.zeros((1001, 30), dtype=np.int8)
    error = refused(
        post(service, npy(thin), "/v1/predict_batch", "application/x-npy"), 413, "payload_too_large"
    )
    assert "1001 rows" in error["message"]
    refused(post(service, thin.tolist(), "/v1/predict_batch"), 413, "payload_too_large")
    wide = arrow(pa.table(dict.fromkeys(frame("cancer").columns, thin[:, 0])))
    media = "application/vnd.apache.arrow.stream"
    refused(post(service, wide, "/v1/predict_batch", media), 413, "payload_too_large")


def test_bad_requests_do_not_disturb_good_ones(service: Service, own: Any, rows: Any) -> None:
    expected = own.predict_proba(frame("cancer"))[:, 1]

    def call(position: int) -> tuple[int, Any]:
        if position % 3 == 0:
            return position, post(
                service, {"instances": [{**rows[position], "mean area": None, "x": 1}]}
            ).status_code
        answer = post(service, {"instances": [rows[position]]}).json()
        return position, answer["predictions"][0]["probabilities"]["1"]

    with ThreadPoolExecutor(16) as pool:
        for position, got in pool.map(call, range(300)):
            assert got == (422 if position % 3 == 0 else pytest.approx(expected[position], abs=1e-12))


# Metrics


def metric(service: Service, name: str, **labels: str) -> float:
    """The value of a series; 0 where it is not there."""
    for line in service.http.get("/metrics").text.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(
            f'{k}="{v}"' in line for k, v in labels.items()
        ):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_metrics_add_up_over_the_workers(
    registry: str, own: Any, rows: Any, serve: Callable[..., Service]
) -> None:
    service = serve(
        MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="cancer", SERVING_WORKERS="2"
    ).wait_ready()
    names = {"model": "cancer", "version": "1"}
    expected = {
        "rows": 40,
        "requests": 40,
        "class": int((own.predict(frame("cancer"))[:40] == 0).sum()),
        "errors": 40,
        "active": 0,
        "ready": 1,
        "loaded": 1,
    }

    def counted() -> dict[str, float]:
        return {
            "rows": metric(service, "model_predictions_total", **names),
            "requests": metric(service, "model_prediction_latency_seconds_count", **names),
            "class": metric(service, "model_predicted_class_total", predicted_class="0", **names),
            "errors": metric(service, "model_prediction_errors_total", type="invalid_input", **names),
            "active": metric(service, "model_active_requests"),
            "ready": metric(service, "model_ready"),
            "loaded": metric(service, "model_info", runtime="compiled", **names),
        }

    def call(position: int) -> None:
        # A connection each, so that both workers get some.
        for row, status in ((rows[position], 200), ({}, 422)):
            answer = service.ask_anew("POST", "/v1/predict", json={"instances": [row]})
            assert answer.status_code == status

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(40)))
    # Each worker writes down what it counted several times a second.
    wait_until(lambda: counted() == expected, 20, str(expected))


def test_scanning_for_paths_makes_no_new_series(service: Service) -> None:
    before = {line.rpartition(" ")[0] for line in service.http.get("/metrics").text.splitlines()}
    for position in range(50):
        service.http.get(f"/admin/{position}.php")
        service.http.request(f"M{position}", "/v1/models")
    after = {line.rpartition(" ")[0] for line in service.http.get("/metrics").text.splitlines()}
    assert {line for line in after - before if "method_not_allowed" not in line} == set()
