"""Calls of a model that do not end: who is answered with what, in a worker's application."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.in_process import Application, running_application
from tests.support.environment import wait_until
from tests.support.patient import patient_registry
from tests.support.promotions import NAME, ROWS

TIMEOUT_SECONDS = 1
LONG_SECONDS = 3


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """An application whose model takes as long as a row says."""
    folder = tmp_path_factory.mktemp("patient")
    registry = patient_registry(folder)
    environment = {"SERVING_ALLOW_PICKLE": "true", "SERVING_REQUEST_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS)}
    with running_application(folder, registry.uri, NAME, **environment) as application:
        yield application


def row(seconds: float) -> dict[str, Any]:
    return ROWS[0] | {"alcohol": -seconds if seconds else 13.0}


def ask(application: Application, seconds: float, **headers: str) -> tuple[int, str, float]:
    """Status, code, and the seconds that it took."""
    began = time.monotonic()
    response = application.post("/v1/predict", json={"instances": [row(seconds)]}, headers=headers)
    code = "" if response.status_code == 200 else response.json()["error"]["code"]
    return response.status_code, code, time.monotonic() - began


@pytest.fixture
def asked_beside(patient: Application) -> Iterator[list[tuple[int, str, float]]]:
    """The answers to a request that takes too long, which is being made while the test runs."""
    answers: list[tuple[int, str, float]] = []
    thread = threading.Thread(target=lambda: answers.append(ask(patient, LONG_SECONDS)))
    thread.start()
    time.sleep(0.1)
    yield answers
    thread.join()
    wait_until(lambda: patient.get("/readyz").status_code == 200, 10, "it is ready again")


def test_a_call_that_takes_too_long_is_504_and_those_behind_it_503(
    patient: Application, asked_beside: list[tuple[int, str, float]]
):
    status, code, seconds = ask(patient, 0)
    assert (status, code) == (503, "model_busy")
    assert seconds < LONG_SECONDS
    wait_until(lambda: asked_beside, 5, "the first is answered")
    assert asked_beside[0][:2] == (504, "timed_out")
    assert TIMEOUT_SECONDS <= asked_beside[0][2] < LONG_SECONDS


def test_it_is_not_ready_while_the_call_goes_on_and_answers_at_once_with_503(
    patient: Application, asked_beside: list[tuple[int, str, float]]
):
    wait_until(lambda: patient.get("/readyz").status_code == 503, 5, "it is not ready")
    assert "SERVING_REQUEST_TIMEOUT_SECONDS" in patient.get("/readyz").json()["error"]["message"]
    assert "\nmodel_ready 0.0" in patient.get("/metrics").text
    response = patient.post("/v1/predict", json={"instances": [row(0)]})
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.headers["connection"] == "close"
    assert patient.get("/livez").status_code == 200
    wait_until(lambda: patient.get("/readyz").status_code == 200, 10, "it is ready again")
    assert ask(patient, 0)[0] == 200
    assert "\nmodel_ready 1.0" in patient.get("/metrics").text


def test_a_request_may_take_less_time_and_not_more(patient: Application):
    assert ask(patient, 0.5, **{"X-Request-Timeout": "0.1"})[:2] == (504, "timed_out")
    wait_until(lambda: ask(patient, 0)[0] == 200, 5, "it answers")
    assert patient.get("/readyz").status_code == 200  # the caller was in a hurry, the model is not stuck
    assert ask(patient, LONG_SECONDS, **{"X-Request-Timeout": "3600"})[1] == "timed_out"
    wait_until(lambda: patient.get("/readyz").status_code == 200, 10, "it is ready again")


@pytest.mark.parametrize(
    "value", ["0", "0.0", "-1", "nan", "inf", "1e999", "1e3", "", "1s", "\u0661", "9" * 400]
)
def test_a_time_that_means_nothing_is_refused(patient: Application, value: str):
    response = patient.post(
        "/v1/predict",
        json={"instances": [row(0)]},
        headers={"X-Request-Timeout": value.encode()},  # type: ignore[dict-item]  # httpx takes bytes
    )
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed_header")
    assert value not in response.text or value in ("0", "")
