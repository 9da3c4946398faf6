"""Requests that share calls: right answers, a full queue; and in a real service, clients that hang up."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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

from tests.http.in_process import Application, running_application
from tests.support.environment import wait_until
from tests.support.models import REQUIREMENTS, fill_registry, frame
from tests.support.prepared import prepare_all
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
    uri = fill_registry(tmp_path_factory.mktemp("slow"), {"slow": slow})
    prepare_all(uri)
    return uri


@pytest.fixture
def start_slow(slow_uri: str, tmp_path: Path) -> Iterator[Callable[..., Application]]:
    with contextlib.ExitStack() as stack:

        def start(**environment: str) -> Application:
            running = running_application(tmp_path / "worker", slow_uri, "slow", **environment)
            return stack.enter_context(running)

        yield start


def metric(asked: httpx.Client | Application, name: str, model: str | None = None) -> float:
    """The value of a metric, added up over its labels."""
    families = text_string_to_metric_families(asked.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and model in (None, sample.labels.get("model_name"))
    )


def ask(asked: httpx.Client | Application, number: float, gate: Path) -> httpx.Response:
    body = {"instances": [{"number": number}], "params": {"gate": str(gate)}}
    return asked.post("/v1/predict", json=body)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """The file that calls of the slow model wait for."""
    file = tmp_path / "gate"
    yield file
    file.touch()


def wait_active(asked: httpx.Client | Application, n_requests: int) -> None:
    """Waits until so many requests are being answered."""
    wait_until(lambda: metric(asked, "model_active_requests") == n_requests, 20, f"{n_requests} requests")


def begin_call(
    callers: ThreadPoolExecutor, asked: httpx.Client | Application, gate: Path, number: float = 1
) -> "Future[httpx.Response]":
    """Asks, and waits until the call is being made: what comes from now on shares the next."""
    n_before = metric(asked, "model_batch_rows_count")
    first = callers.submit(ask, asked, number, gate)
    wait_until(lambda: metric(asked, "model_batch_rows_count") > n_before, 20, "a call is made")
    return first


@pytest.mark.parametrize("runtime", ["auto", "native"])
def test_many_callers_share_calls_and_get_their_own_answers(
    registry: str, tmp_path: Path, runtime: str
) -> None:
    is_native = runtime == "native"
    rows = frame("cancer").head(200)
    records = rows.to_dict("records")
    own = mlflow.sklearn.load_model("models:/cancer@production").predict_proba(rows)
    names = ("model_batch_rows_count", "model_batch_rows_sum", "model_queue_wait_seconds_count")
    with running_application(tmp_path, registry, "cancer", SERVING_RUNTIME=runtime) as application:
        (described,) = application.get("/v1/models").json()["models"]
        assert described["runtime"] == ("native" if is_native else "compiled")
        assert described["native_reason"] == ("SERVING_RUNTIME=native" if is_native else None)
        before = {name: metric(application, name, "cancer") for name in names}

        def one(index: int) -> list[float]:
            answer = application.post("/v1/predict", json={"instances": [records[index]]})
            return list(answer.json()["predictions"][0]["probabilities"].values())

        with ThreadPoolExecutor(32) as callers:
            got = list(callers.map(one, range(200)))
        calls, n_rows, n_waited = (metric(application, name, "cancer") - before[name] for name in names)

    np.testing.assert_allclose(got, own, rtol=0, atol=1e-12)
    if not is_native:  # whether sharing pays, and who comes together, is for this machine to say
        return
    assert described["batching"]["shared_calls"] is True
    assert n_rows == 200
    assert calls < 200, "no two of them shared a call"
    assert n_waited == 200


def test_the_rows_of_callers_that_hung_up_are_not_predicted(
    serve: Callable[..., Service], slow_uri: str, gate: Path
) -> None:
    service = serve(MLFLOW_TRACKING_URI=slow_uri, SERVING_MODEL_NAME="slow").wait_ready()
    body = json.dumps({"instances": [{"number": 1}], "params": {"gate": str(gate)}}).encode()
    request = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    with ThreadPoolExecutor(1) as callers:
        first = begin_call(callers, service.http, gate)
        port = int(service.url.rpartition(":")[2])
        impatient = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for connection in impatient:
            connection.sendall(request)
        wait_active(service.http, 6)
        for connection in impatient:
            connection.close()
        wait_active(service.http, 1)
        gate.touch()
        assert first.result().json()["predictions"] == [{"value": 2}]
    assert ask(service.http, 5, gate).json()["predictions"] == [{"value": 10}]
    assert metric(service.http, "model_batch_rows_sum") == 2


def test_one_caller_more_than_may_wait_is_told_to_come_back(
    start_slow: Callable[..., Application], gate: Path
) -> None:
    application = start_slow(SERVING_MAX_QUEUED_REQUESTS="2")
    with ThreadPoolExecutor(8) as callers:
        first = begin_call(callers, application, gate)
        others = {n: callers.submit(ask, application, n, gate) for n in range(2, 8)}
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
    start_slow: Callable[..., Application], gate: Path, mode: str, calls: int
) -> None:
    application = start_slow(SERVING_BATCHING=mode)
    before = metric(application, "model_batch_rows_count", "slow")
    with ThreadPoolExecutor(8) as callers:
        first = begin_call(callers, application, gate, 0)
        others = [callers.submit(ask, application, n, gate) for n in range(1, 7)]
        wait_active(application, 7)
        gate.touch()
        answers = [other.result() for other in others]
        first.result()
    assert [answer.json()["predictions"] for answer in answers] == [[{"value": 2 * n}] for n in range(1, 7)]
    assert metric(application, "model_batch_rows_count", "slow") - before == calls


def test_without_metrics_nothing_is_counted_and_everything_answers(registry: str, tmp_path: Path) -> None:
    with running_application(tmp_path, registry, "wine", SERVING_METRICS="false") as application:
        before = metric(application, "model_predictions_total")
        application.predict(frame("wine").head(2).to_dict("records"))
        assert metric(application, "model_predictions_total") == before
        assert metric(application, "model_ready") == 1
