"""MLflow's scoring protocol beside the rows: pages, headers, errors, limits, and MLflow's own client."""

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from serving.errors import (
    MalformedBody,
    ModelBusy,
    ModelNotReady,
    ModelRefusedInput,
    QueueFull,
    RouteNotFound,
    TimedOut,
    VersionNotFound,
)
from serving.http.gateway import Gateway
from serving.protocols.mlflow import INVOCATIONS, error_code
from tests.http.in_process import Application, running_application
from tests.protocols.asking import CSV, PARQUET
from tests.support.models import frame
from tests.support.services import running_service

JSON = {"content-type": "application/json"}
ROWS = frame("cancer").head(3)
BODY = {"dataframe_split": ROWS.to_dict("split")}


@pytest.fixture(scope="module")
def service(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("worker")
    more = {"SERVING_MAX_BODY_MB": "20", "SERVING_MAX_ROWS": "1000", "SERVING_ALLOW_VERSION_CHOICE": "true"}
    with running_application(folder, registry_uri, "cancer", **more) as running:
        yield running


def refused(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = dict(response.json())
    assert body["error_code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body


def post(service: Application, body: bytes, media_type: str) -> Any:
    return service.post("/invocations", content=body, headers={"content-type": media_type})


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_ping_and_health_are_mlflows(service: Application, path: str) -> None:
    response = service.get(path)
    assert (response.status_code, response.text) == (200, "\n")
    assert response.headers["content-type"] == "application/json"
    assert service.post(path).status_code == 405


def test_without_a_model_ping_is_404() -> None:
    class Empty:
        current = None

    assert Gateway(Empty(), None, None, 1)._ping()[0] == 404  # type: ignore[arg-type]


def test_version_is_that_of_mlflow_as_it_logged_the_model(service: Application) -> None:
    assert service.get("/version").text == mlflow.__version__


def test_answers_have_our_headers_and_databricks_own(service: Application) -> None:
    headers = {**JSON, "x-request-id": "order:17"}
    response = service.post("/invocations", content=json.dumps(BODY), headers=headers)
    assert response.headers["x-request-id"] == "order:17"
    assert response.headers["x-model-version"] == "1"
    assert response.headers["x-model-role"] == "champion"
    assert response.headers["served-model-name"] == "cancer-1"
    assert list(response.json()) == ["predictions"]


def test_a_body_without_a_media_type_is_json(service: Application) -> None:
    assert service.post("/invocations", content=json.dumps(BODY)).status_code == 200


def test_databricks_path_has_the_models_name(service: Application) -> None:
    answered = service.post("/serving-endpoints/cancer/invocations", json=BODY)
    assert answered.json() == service.post("/invocations", json=BODY).json()
    refused(service.post("/serving-endpoints/wine/invocations", json=BODY), 404, "ENDPOINT_NOT_FOUND")


def test_a_request_may_name_the_version(service: Application) -> None:
    for version, status in (("1", 200), ("champion", 200), ("9", 404)):
        response = service.post("/invocations", json=BODY, headers={"x-model-version": version})
        assert response.status_code == status
    refused(response, 404, "RESOURCE_DOES_NOT_EXIST")


def test_metrics_count_the_status_that_is_sent(service: Application) -> None:
    def counted() -> set[str]:
        text = service.get("/metrics").text
        return {
            line for line in text.splitlines() if 'error_type="invalid_input"' in line and "_total{" in line
        }

    before = counted()  # by other tests of this process
    refused(service.post("/invocations", json={"dataframe_records": [{}]}), 400, "INVALID_PARAMETER_VALUE")
    (line,) = counted() - before
    assert 'status="400"' in line


def test_compressed_bodies_are_read(service: Application) -> None:
    body = gzip.compress(json.dumps(BODY).encode())
    response = service.post("/invocations", content=body, headers={**JSON, "content-encoding": "gzip"})
    assert response.status_code == 200


def test_get_is_refused_in_mlflows_form(service: Application) -> None:
    refused(service.get("/invocations"), 405, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MalformedBody("x"), 400, "BAD_REQUEST"),
        (ModelRefusedInput("x"), 400, "BAD_REQUEST"),
        (RouteNotFound("x"), 404, "ENDPOINT_NOT_FOUND"),
        (VersionNotFound("x"), 404, "RESOURCE_DOES_NOT_EXIST"),
        (ModelNotReady("x"), 503, "TEMPORARILY_UNAVAILABLE"),
        (QueueFull("x"), 503, "TEMPORARILY_UNAVAILABLE"),
        (ModelBusy("x"), 503, "TEMPORARILY_UNAVAILABLE"),
        (TimedOut(), 504, "DEADLINE_EXCEEDED"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_have_mlflows_codes(error: Any, status: int, code: str) -> None:
    from mlflow.protos.databricks_pb2 import ErrorCode

    assert INVOCATIONS.encode_error is not None
    sent, body = INVOCATIONS.encode_error(error, "id")
    assert (sent, json.loads(body)["error_code"]) == (status, code)
    assert error_code(error) in ErrorCode.keys()  # noqa: SIM118  # it is no dict


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


HEADER = ",".join(ROWS.columns)
ROW = ",".join("1" for _ in ROWS.columns)

HOSTILE: dict[str, tuple[str, int, Any]] = {
    "nothing": ("application/json", 400, lambda: b""),
    "truncated": ("application/json", 400, lambda: json.dumps(BODY).encode()[:-5]),
    "deep": ("application/json", 413, lambda: b'{"inputs":' + b"[" * 10_000_000),
    "deep and closed": (
        "application/json",
        400,
        lambda: b'{"inputs":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ),
    "a large integer": ("application/json", 400, lambda: records(**{"mean radius": 2**40 * 10**300})),
    "digits": (
        "application/json",
        400,
        lambda: b'{"dataframe_records":[{"mean radius":' + b"9" * 5_000_000 + b"}]}",
    ),
    "digits and NaN": ("application/json", 400, lambda: b'{"inputs":[NaN,' + b"9" * 5_000_000 + b"]}"),
    "many lists": ("application/json", 413, lambda: b'{"inputs":[' + b"[]," * 4_000_000 + b"[]]}"),
    "a long body": ("application/json", 413, lambda: b'{"inputs":"' + b"x" * 17_000_000 + b'"}'),
    "many rows": ("application/json", 413, lambda: b'{"dataframe_records":[' + b"{}," * 2_000 + b"{}]}"),
    "CSV with many rows": (CSV, 413, lambda: f"{HEADER}\n".encode() + f"{ROW}\n".encode() * 2_000),
    "CSV with many columns": (CSV, 413, lambda: HEADER.encode() + b"," * 10_000_000),
    "CSV with wide rows": (CSV, 413, lambda: f"{HEADER}\n".encode() + b"," * 10_000_000),
    "CSV with many columns and rows": (
        CSV,
        200,
        lambda: HEADER.encode() + b",x" * 100_000 + b"\n" + f"{ROW}\n".encode() * 900,
    ),
    "CSV with an endless cell": (CSV, 400, lambda: f'{HEADER}\n"'.encode() + b"x" * 1_000_000),
    "CSV of zeros": (CSV, 400, lambda: b"\0" * 1_000_000),
    "no Parquet": (PARQUET, 400, lambda: b"PAR1" + b"x" * 100 + b"PAR1"),
    "Parquet with many rows": (PARQUET, 413, lambda: parquet({"mean radius": np.zeros(10_000_000)})),
    "Parquet with lists": (PARQUET, 415, lambda: parquet({"mean radius": [[1.0]] * 3})),
}


def records(**cells: Any) -> bytes:
    return json.dumps({"dataframe_records": [ROWS.iloc[0].to_dict() | cells]}).encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused(service: Application, name: str) -> None:
    media_type, status, make = HOSTILE[name]
    response = post(service, make(), media_type)
    assert response.status_code == status, response.text[:300]


def test_the_last_of_equal_keys_counts(service: Application) -> None:
    """As in MLflow, and in every JSON parser of Python."""
    text = json.dumps(BODY).replace("{", '{"dataframe_split": 1, ', 1)
    assert service.post("/invocations", content=text, headers=JSON).status_code == 200


def test_mlflows_own_client_is_answered(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It writes a missing value as NaN."""
    folder = tmp_path_factory.mktemp("service")
    environment = {"MLFLOW_TRACKING_URI": registry_uri, "SERVING_MODEL_NAME": "custom pyfunc"}
    sums = pd.DataFrame({"a": [1.5, -2.0], "b": [2, 1], "bonus": [np.nan, 0.5]})
    with running_service(folder, **environment) as running:
        running.wait_ready()
        host, port = running.url.removeprefix("http://").split(":")
        client = ScoringServerClient(host, int(port))
        client.wait_server_ready(timeout=30)
        answered = client.invoke(sums).get_predictions()
        assert client.get_version() == mlflow.__version__
        doubled = client.invoke(sums, params={"factor": 2.0}).get_predictions()
    pd.testing.assert_frame_equal(answered, pd.DataFrame({"total": [3.5, -0.5], "sign": ["plus", "minus"]}))
    assert doubled["total"].tolist() == [7.0, -1.0]
