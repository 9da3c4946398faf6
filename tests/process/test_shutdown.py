"""The end of a service: not ready at once, nobody cut off who was let in, and no longer than it may take."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from serving.process.child import PARENT_VARIABLE
from serving.settings import Settings
from tests.support.environment import wait_until
from tests.support.prepared import prepare_all
from tests.support.promotions import NAME, ROWS, Registry, trapped
from tests.support.services import Service, running_service

BODY = json.dumps({"instances": ROWS[:1]})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A quick version, and one that takes a fifth of a second for each call once it is served."""
    made = Registry(tmp_path_factory.mktemp("versions"), 1.0)
    made.add(trapped("sluggish"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARENT_VARIABLE, str(os.getppid()))  # while it is prepared it is quick
        prepare_all(made.uri)
    return made


def serving(
    registry: Registry, folder: Path, version: str, **environment: str
) -> contextlib.AbstractContextManager[Service]:
    return running_service(
        folder,
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_MODEL_VERSION=version,
        **environment,
    )


def connect(service: Service) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)


def predict(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    connection.request("POST", "/v1/predict", BODY, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response


def test_it_is_not_ready_at_once_and_answers_until_it_ends(registry: Registry, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(serving(registry, tmp_path, "1", SERVING_DRAIN_SECONDS="2"))
        service.wait_ready()
        kept = stack.enter_context(contextlib.closing(connect(service)))
        assert predict(kept).getheader("Connection") != "close"
        service.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while service.answers("/readyz", 503) is None:
            assert time.monotonic() - began < 1, "it is ready still"
        reason = service.http.get("/readyz").json()["error"]
        assert (reason["code"], reason["message"]) == ("model_not_ready", "the service is shutting down")
        last = predict(kept)
        assert (last.status, last.getheader("Connection")) == (200, "close")
        new = stack.enter_context(contextlib.closing(connect(service)))
        assert predict(new).status == 200
        service.process.wait(20)
        assert 2 <= time.monotonic() - began < 15


def test_no_request_is_lost_of_clients_that_go_where_they_are_sent(
    registry: Registry, tmp_path: Path
) -> None:
    """Each sends one request after the other, and none to a service that has told it to go."""
    answered: list[int] = []
    failed: list[str] = []

    def fire(service: Service) -> None:
        with contextlib.closing(connect(service)) as connection:
            try:
                while True:
                    response = predict(connection)
                    answered.append(response.status)
                    if response.getheader("Connection") == "close":
                        return
            except (OSError, http.client.HTTPException) as error:
                failed.append(repr(error))

    with serving(registry, tmp_path, "2", SERVING_DRAIN_SECONDS="3") as service:
        service.wait_ready()
        threads = [threading.Thread(target=fire, args=(service,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) >= len(threads), 30, "every client is answered")
        n_before = len(answered)
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        service.process.wait(20)
    assert failed == []
    assert set(answered) == {200}
    assert len(answered) >= n_before + len(threads)


def test_no_new_connection_is_reset_of_clients_that_go_where_they_are_sent(
    registry: Registry, tmp_path: Path
) -> None:
    """As the default is: each request has a connection of its own, as with most scripts and some proxies."""
    answered: list[int] = []
    failed: list[str] = []

    def fire(service: Service) -> None:
        while True:
            try:
                with contextlib.closing(connect(service)) as connection:
                    response = predict(connection)
            except (OSError, http.client.HTTPException) as error:
                failed.append(repr(error))
                return
            answered.append(response.status)
            if response.getheader("Connection") == "close":
                return

    drain = str(Settings.model_fields["drain_seconds"].default)
    with serving(registry, tmp_path, "1", SERVING_DRAIN_SECONDS=drain) as service:
        service.wait_ready()
        threads = [threading.Thread(target=fire, args=(service,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) >= 200, 30, "clients are answered")
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        service.process.wait(20)
    assert failed == []
    assert set(answered) == {200}


def test_what_takes_too_long_is_cut_off(registry: Registry, tmp_path: Path) -> None:
    settings = {"SERVING_SHUTDOWN_SECONDS": "2", "SERVING_BATCHING": "off"}
    with contextlib.ExitStack() as stack, serving(registry, tmp_path, "2", **settings) as service:
        service.wait_ready()
        waiting = [connect(service) for _ in range(60)]  # 12 seconds of work
        for connection in waiting:
            stack.callback(connection.close)
            connection.request("POST", "/v1/predict", BODY, {"Content-Type": "application/json"})
        time.sleep(1)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(20)
        assert time.monotonic() - began < 8
