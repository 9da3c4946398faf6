"""Workers that hang, in a real service: they are replaced, and nobody else is harmed."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.traffic.watchdog import GRACE_SECONDS
from tests.support.environment import wait_until
from tests.support.patient import patient_registry
from tests.support.processes import WORKER, child_processes
from tests.support.promotions import NAME, ROWS
from tests.support.services import Service, running_service

TIMEOUT_SECONDS = 1
N_WORKERS = 3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Three workers with a model that takes as long as a row says."""
    folder = tmp_path_factory.mktemp("hanging")
    registry = patient_registry(folder)
    with running_service(
        folder,
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_WORKERS=str(N_WORKERS),
        SERVING_REQUEST_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS),
        # As in an image, where BentoML by itself starts no worker again.
        BENTOML_CONTAINERIZED="true",
    ) as service:
        yield service.wait_ready()


def workers(service: Service) -> set[int]:
    return set(child_processes(service.process.pid, WORKER))


def ask(service: Service, **values: float) -> httpx.Response:
    body: dict[str, Any] = {"instances": [ROWS[0] | values]}
    return service.ask_anew("POST", "/v1/predict", json=body)


def test_workers_that_are_stopped_or_stuck_are_replaced_and_no_other_request_is_lost(service: Service):
    before = workers(service)
    stopped = min(before)
    os.kill(stopped, signal.SIGSTOP)
    assert ask(service, alcohol=-3600).status_code == 504
    answers: Counter[int] = Counter()
    is_over = threading.Event()

    def fire() -> None:
        while not is_over.wait(0.02):
            answers[ask(service).status_code] += 1

    clients = [threading.Thread(target=fire) for _ in range(3)]
    for client in clients:
        client.start()
    wait_until(
        lambda: len(workers(service) - before) == 2 and len(workers(service)) == N_WORKERS,
        TIMEOUT_SECONDS + GRACE_SECONDS + 20,
        "both are replaced",
    )
    is_over.set()
    for client in clients:
        client.join(30)
        assert not client.is_alive()
    assert len(workers(service) & before) == 1
    assert not Path(f"/proc/{stopped}").exists()
    assert set(answers) <= {200, 503}
    assert answers[200] > 50
    assert answers[503] < answers[200] / 5, "the one that is stuck takes new connections"
    service.wait_ready()
    assert f"worker {stopped} has sent no heartbeat" in service.log
    assert "the call does not end" in service.log


def test_a_worker_whose_event_loop_hangs_is_replaced(service: Service):
    service.wait_ready()
    before = workers(service)
    hanging = threading.Thread(target=lambda: _ignore(service))
    hanging.start()
    wait_until(
        lambda: len(workers(service) - before) == 1 and len(workers(service)) == N_WORKERS,
        TIMEOUT_SECONDS + GRACE_SECONDS + 20,
        "it is replaced",
    )
    hanging.join(30)
    assert ask(service).status_code in (200, 503)
    service.wait_ready()


def _ignore(service: Service) -> None:
    """Asks what makes the worker hang with everything in it, which then cannot answer."""
    with pytest.raises(httpx.TransportError):
        ask(service, malic_acid=-3600)
