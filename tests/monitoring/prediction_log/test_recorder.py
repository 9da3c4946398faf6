"""A worker's end of the log: nobody waits for it, and what does not fit is counted."""

import socket
import tempfile
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import REGISTRY

from serving.monitoring.finished import Finished
from serving.monitoring.prediction_log import recorder
from serving.monitoring.prediction_log.frames import take_frames
from serving.monitoring.prediction_log.options import socket_path
from serving.monitoring.prediction_log.recorder import PredictionLog
from serving.monitoring.prediction_log.rows import Rows
from serving.monitoring.prediction_log.tables import to_table
from serving.runtime import Output
from serving.settings import Settings
from tests.monitoring.prediction_log.answered import answer, decoded, finished, manifest_of, numbers
from tests.support.environment import wait_until
from tests.support.manifests import some_manifest


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # a short path, for a socket
        yield Path(folder)


def counted(reason: str) -> float:
    value = REGISTRY.get_sample_value("model_prediction_log_dropped_rows_total", {"reason": reason})
    return value or 0.0


def start(folder: Path, **settings: Any) -> PredictionLog:
    log = PredictionLog(folder, Settings(**settings))
    log.start()
    return log


def listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(socket_path(folder)))
    listener.listen()
    listener.settimeout(30)
    return listener


def received(listener: socket.socket) -> list[Rows]:
    """The messages of the next connection, until its end."""
    connection, _ = listener.accept()
    buffer = bytearray()
    with connection:
        while part := connection.recv(65536):
            buffer += part
    return [msgspec.msgpack.decode(one.payload, type=Rows) for one in take_frames(buffer)]


def rest_of(log: PredictionLog, listener: socket.socket) -> list[Rows]:
    """What the writer gets of a worker that ends, whose connection the kernel closes."""
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(received, listener)
        log.close()
        if log._connection:
            log._connection.close()
        return reading.result()


def test_rows_wait_for_the_writer_in_order(folder: Path):
    log = start(folder)
    for number in range(50):
        log.observe(finished(numbers(1, number), request_id=str(number)))
    other = some_manifest(version="4")
    log.observe(finished(numbers(3_000), manifest=other, request_id="large"))
    with listen(folder) as listener:
        messages = rest_of(log, listener)
    assert [(one.version, sum(one.n_rows)) for one in messages] == [
        ("3", 50),
        *[("4", 1_000)] * 3,
    ]
    assert to_table(messages[0])["input_a"].to_pylist() == list(range(50))
    assert [value for one in messages[1:] for value in to_table(one)["row"].to_pylist()] == list(range(3_000))


def test_what_does_not_fit_is_dropped_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorder, "MAX_WAITING_BYTES", 100_000)
    before = counted("queue")
    log = start(folder)
    log.observe(finished(numbers(20_000)))  # alone, a large one is accepted
    for _ in range(10):
        log.observe(finished(numbers(5)))
    log.flush()
    assert counted("queue") - before == 50
    with listen(folder) as listener:
        assert sum(sum(one.n_rows) for one in rest_of(log, listener)) == 20_000


def test_a_request_without_a_form_in_the_log_harms_no_other(folder: Path):
    texts = manifest_of({"name": "text", "type": "string"})
    before = counted("encoding")
    log = start(folder)
    for text in ("a", "\ud800", "b"):
        inputs = decoded(texts, [{"text": "x"}])
        inputs.columns[0][:] = text  # half a character, as a UTF-16 array may bring it
        log.observe(finished(inputs, answer(1), texts))
    with listen(folder) as listener:
        assert [one.inputs for one in rest_of(log, listener)] == [[["a"]], [["b"]]]
    log.flush()
    assert counted("encoding") - before == 1


def test_after_a_lost_connection_the_message_is_sent_again(folder: Path):
    log = start(folder)
    with listen(folder) as listener:
        log.observe(finished(numbers(1), request_id="a"))
        connection, _ = listener.accept()
        wait_until(lambda: connection.recv(65536), 10, "the first one is there")
        connection.close()
        log.observe(finished(numbers(1), request_id="b"))
        log._wake.set()
        wait_until(lambda: not log._waiting, 10, "it is sent")
        messages = rest_of(log, listener)
    assert [one.request_ids for one in messages] == [["b"]]


def test_a_sampled_share_is_observed(folder: Path):
    log = start(folder, log_percent=50)
    for number in range(400):
        log.observe(finished(numbers(1), request_id=str(number)))
    with listen(folder) as listener:
        n_rows = sum(sum(one.n_rows) for one in rest_of(log, listener))
    assert 140 <= n_rows <= 260  # 6 standard deviations


def test_the_estimate_of_memory_is_not_below_what_waits():
    texts = manifest_of(*({"name": f"c{i}", "type": "string"} for i in range(20)))

    def requests(n_rows: int) -> Iterator[Finished]:
        body = [{f"c{i}": f"text {i}" for i in range(20)}] * n_rows
        for _ in range(200):
            yield finished(decoded(texts, body), answer(n_rows), texts, body_bytes=400 * n_rows)

    for n_rows in (1, 20):
        tracemalloc.start()
        kept = list(requests(n_rows))
        estimated = sum(recorder.estimate_bytes(one) for one in kept)
        # What is freed: threads of other tests and caches allocate, too.
        used, _ = tracemalloc.get_traced_memory()
        del kept
        used -= tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert 0.7 * used < estimated < 5 * used


def test_a_regressor_needs_no_classes(folder: Path):
    log = start(folder)
    manifest = some_manifest(task="regression", classes=None, has_probabilities=False)
    log.observe(finished(numbers(2), Output(values=np.array([1.0, 2.0])), manifest))
    with listen(folder) as listener:
        (rows,) = rest_of(log, listener)
    assert to_table(rows)["value"].to_pylist() == [1.0, 2.0]
