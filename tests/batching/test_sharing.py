"""Requests that share calls, in a real service: right answers, hung-up clients, a full queue."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from prometheus_client.parser import text_string_to_metric_families

from tests.support.environment import tracking, wait_until
from tests.support.models import REQUIREMENTS, fill_registry, frame
from tests.support.services import Service


class Slow(mlflow.pyfunc.PythonModel):
    """Doubles numbers, once there is a file if told of one."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        gate = (params or {}).get("gate")
        while gate and not Path(gate).exists():
            time.sleep(0.01)
        return model_input["number"].to_numpy() * 2


def slow(name: str) -> Any:
    example = pd.DataFrame({"number": [1.0, 2.0, 3.0]})
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", "number")]),
        params=ParamSchema([ParamSpec("gate", "string", "")]),
    )
    return mlflow.pyfunc.log_model(
        python_model=Slow(),
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=signature,
        input_example=example,
    )


@pytest.fixture(scope="module")
def slow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fill_registry(tmp_path_factory.mktemp("slow"), {"slow": slow})


@pytest.fixture
def start_slow(serve: Callable[..., Service], slow_uri: str) -> Callable[..., Service]:
    def start(**environment: str) -> Service:
        return serve(MLFLOW_TRACKING_URI=slow_uri, SERVING_MODEL_NAME="slow", **environment).wait_ready()

    return start


def metric(service: Service, name: str) -> float:
    """The value of a metric, added up over its labels."""
    families = text_string_to_metric_families(service.http.get("/metrics").text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def ask(service: Service, number: float, gate: Path) -> httpx.Response:
    body = {"instances": [{"number": number}], "params": {"gate": str(gate)}}
    return service.ask_anew("POST", "/v1/predict", json=body)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """The file that calls of the slow model wait for."""
    file = tmp_path / "gate"
    yield file
    file.touch()


def wait_active(service: Service, n_requests: int) -> None:
    """Waits until so many requests are being answered."""
    wait_until(lambda: metric(service, "model_active_requests") == n_requests, 20, f"{n_requests} requests")


@pytest.mark.parametrize("runtime", ["auto", "native"])
def test_many_callers_share_calls_and_get_their_own_answers(
    serve: Callable[..., Service], registry: str, runtime: str
) -> None:
    service = serve(
        MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="cancer", SERVING_RUNTIME=runtime
    ).wait_ready()
    (described,) = service.http.get("/v1/models").json()["models"]
    is_native = runtime == "native"
    assert described["runtime"] == ("native" if is_native else "compiled")
    assert described["native_reason"] == ("SERVING_RUNTIME=native" if is_native else None)
    rows = frame("cancer").head(200)
    records = rows.to_dict("records")
    with tracking(registry):
        own = mlflow.sklearn.load_model("models:/cancer@production").predict_proba(rows)

    def one(index: int) -> list[float]:
        answer = service.ask_anew("POST", "/v1/predict", json={"instances": [records[index]]})
        return list(answer.json()["predictions"][0]["probabilities"].values())

    with ThreadPoolExecutor(32) as callers:
        got = list(callers.map(one, range(200)))

    np.testing.assert_allclose(got, own, rtol=0, atol=1e-12)
    if not is_native:  # whether sharing pays, and who comes together, is for this machine to say
        return
    assert described["batching"]["shared_calls"] is True
    calls = metric(service, "model_batch_rows_count")
    assert metric(service, "model_batch_rows_sum") == 200
    assert calls < 200, "no two of them shared a call"
    assert metric(service, "model_queue_wait_seconds_count") == 200


def test_the_rows_of_callers_that_hung_up_are_not_predicted(
    start_slow: Callable[..., Service], gate: Path
) -> None:
    service = start_slow()
    body = json.dumps({"instances": [{"number": 1}], "params": {"gate": str(gate)}}).encode()
    request = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    with ThreadPoolExecutor(1) as callers:
        first = callers.submit(ask, service, 1, gate)
        wait_active(service, 1)
        port = int(service.url.rpartition(":")[2])
        impatient = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for connection in impatient:
            connection.sendall(request)
        wait_active(service, 6)
        for connection in impatient:
            connection.close()
        wait_active(service, 1)
        gate.touch()
        assert first.result().json()["predictions"] == [{"value": 2}]
    assert ask(service, 5, gate).json()["predictions"] == [{"value": 10}]
    assert metric(service, "model_batch_rows_sum") == 2


def test_one_caller_more_than_may_wait_is_told_to_come_back(
    start_slow: Callable[..., Service], gate: Path
) -> None:
    service = start_slow(SERVING_MAX_QUEUED_REQUESTS="2")
    with ThreadPoolExecutor(8) as callers:
        first = callers.submit(ask, service, 1, gate)
        wait_active(service, 1)
        others = {n: callers.submit(ask, service, n, gate) for n in range(2, 8)}
        wait_until(lambda: sum(other.done() for other in others.values()) == 4, 20, "four are sent away")
        gate.touch()
        answers = {n: other.result() for n, other in others.items()}
        assert first.result().status_code == 200

    refused = [answer for answer in answers.values() if answer.status_code == 503]
    assert len(refused) == 4
    waited = {n: answer.json()["predictions"] for n, answer in answers.items() if answer.status_code == 200}
    assert waited == {n: [{"value": 2 * n}] for n in waited}
    for answer in refused:
        assert answer.json()["error"]["code"] == "queue_full"
        assert "SERVING_MAX_QUEUED_REQUESTS" in answer.json()["error"]["message"]
        assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(("mode", "calls"), [("auto", 2), ("off", 7)])
def test_batching_can_be_switched_off(
    start_slow: Callable[..., Service], gate: Path, mode: str, calls: int
) -> None:
    service = start_slow(SERVING_BATCHING=mode)
    with ThreadPoolExecutor(8) as callers:
        first = callers.submit(ask, service, 0, gate)
        wait_active(service, 1)
        others = [callers.submit(ask, service, n, gate) for n in range(1, 7)]
        wait_active(service, 7)
        gate.touch()
        answers = [other.result() for other in others]
        first.result()
    assert [answer.json()["predictions"] for answer in answers] == [[{"value": 2 * n}] for n in range(1, 7)]
    assert metric(service, "model_batch_rows_count") == calls


def test_without_metrics_nothing_is_counted_and_everything_answers(
    serve: Callable[..., Service], registry: str
) -> None:
    service = serve(
        MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="wine", SERVING_METRICS="false"
    ).wait_ready()
    service.predict(frame("wine").head(2).to_dict("records"))
    assert metric(service, "model_predictions_total") == 0
    assert metric(service, "model_ready") == 1
