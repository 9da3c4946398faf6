"""What requests take in memory, all together: one that finds no room is told so, and small ones need none."""

import asyncio
import contextlib
import gc
import gzip
import json
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from serving.codecs import limits
from serving.codecs.arrow import arrow_to_inputs
from serving.codecs.json import JsonDecoder
from serving.codecs.json_answers import ENCODED_ROWS
from serving.codecs.limits import SMALL_BYTES
from serving.http.gateway import SENT_BYTES, _send
from serving.model.schema import Column, Form, Kind, Schema, Type
from serving.process.in_flight import Claim, InFlight
from serving.protocols.endpoint import _answer_bytes, held_bytes
from serving.runtime import Output
from tests.http.in_process import Application, running_application
from tests.http.messages import ARROW, arrow, refused
from tests.support.models import frame

ROW = frame("cancer").to_dict("records")[0]
BODY = json.dumps({"instances": [ROW] * 300}).encode()
"""More than a small one, and less than is read in a thread alone."""
N_ROWS = 20_000


def repeated(n_rows: int) -> bytes:
    """A row many times, in fewer bytes than its numbers take."""
    return arrow(
        pa.table({name: pa.array(np.full(n_rows, value)).dictionary_encode() for name, value in ROW.items()})
    )


WORDS = repeated(N_ROWS)
ROWS_BYTES = N_ROWS * len(ROW) * 8
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(tmp_path_factory.mktemp("worker"), registry_uri, "cancer") as running:
        yield running


@contextlib.contextmanager
def room_for(service: Application, n_bytes: int) -> Iterator[None]:
    """While a `with` statement lasts, other requests leave no more than this."""
    in_flight = service.gateway._in_flight
    assert in_flight.n_bytes == 0
    others = Claim(in_flight)
    others.add(in_flight.limit_bytes - n_bytes)
    yield
    others.release()
    assert in_flight.n_bytes == 0


async def in_pieces(body: bytes, n_bytes: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), n_bytes):
        yield body[start : start + n_bytes]


CASES: dict[str, tuple[int, str, Any, dict[str, str]]] = {
    "a body": (len(BODY) - 1, "/v1/predict", BODY, JSON),
    "a body of unknown length": (len(BODY) - 1, "/v1/predict", lambda: in_pieces(BODY, 10_000), JSON),
    "what comes out of a compressed body": (
        len(BODY) - 1,
        "/v1/predict",
        gzip.compress(BODY),
        {**JSON, "content-encoding": "gzip"},
    ),
    "the rows of a small body": (
        len(WORDS) + ROWS_BYTES - 1,
        "/v1/predict_batch",
        WORDS,
        {"content-type": ARROW},
    ),
    "an answer": (len(WORDS) + ROWS_BYTES + 1000, "/v1/predict_batch", WORDS, {"content-type": ARROW}),
    "the command's": (len(BODY) - 1, "/v1/sync", BODY, JSON),
}


@pytest.mark.parametrize("name", CASES)
def test_what_finds_no_room_is_told_to_come_again(service: Application, name: str) -> None:
    room, path, content, headers = CASES[name]

    def ask() -> httpx.Response:
        return service.post(path, content=content() if callable(content) else content, headers=headers)

    with room_for(service, room):
        response = ask()
        refused(response, 503, "queue_full")
        assert "SERVING_REQUEST_MEMORY_MB" in response.json()["error"]["message"]
        assert response.headers["retry-after"] == "1"
        assert response.headers["connection"] == "close"
        assert service.predict([ROW])["predictions"], "a small request needs no room"
    assert ask().status_code in (200, 403), "alone it may take what it needs"


def test_small_bodies_need_no_room_however_they_come(service: Application) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    with room_for(service, 0):
        assert service.post("/v1/predict", content=in_pieces(body, 100), headers=JSON).status_code == 200
        zipped = JSON | {"content-encoding": "gzip"}
        assert service.post("/v1/predict", content=gzip.compress(body), headers=zipped).status_code == 200


def test_a_small_compressed_body_waits_for_no_large_one(service: Application) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    goes_on = threading.Event()
    in_flight = service.gateway._in_flight

    async def main() -> httpx.Response:
        busy = asyncio.create_task(Claim(in_flight).run_in_turn(10**9, goes_on.wait))
        await asyncio.sleep(0)
        try:
            return await service._client.post(
                "/v1/predict", content=gzip.compress(body), headers=JSON | {"content-encoding": "gzip"}
            )
        finally:
            goes_on.set()
            await busy

    assert service._call(main()).status_code == 200


def test_who_gives_up_leaves_claim_and_turn_to_the_thread() -> None:
    """Else bodies that nobody waits for would gather before it, and nobody count them."""

    async def main() -> None:
        in_flight = InFlight(100)
        goes_on = threading.Event()
        claim, other = Claim(in_flight), Claim(in_flight)
        claim.add(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await claim.run_in_turn(10**9, goes_on.wait)
        claim.release()
        assert in_flight.n_bytes == 60
        called: list[int] = []
        for _ in range(3):  # who waits for a turn and gives up leaves nothing behind
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await other.run_in_turn(10**9, called.append, 1)
        assert not other._is_kept
        goes_on.set()
        await other.run_in_turn(10**9, called.append, 2)
        assert called == [2]
        assert in_flight.n_bytes == 0

    asyncio.run(main())


def test_small_bodies_that_stand_for_much_are_claimed() -> None:
    text = "x" * 20_000
    views = pa.array([text] * 1000, pa.string_view())
    views = pa.Array.from_buffers(
        pa.string_view(),
        1000,
        [None, pa.py_buffer(views.buffers()[1][:16].to_pybytes() * 1000), views.buffers()[2]],
    )
    body = arrow(pa.table({"a": views}))
    schema = Schema((Column("a", Type(Kind.STRING)),), Form.RECORD)
    inputs = arrow_to_inputs(body, schema, 10_000)
    assert len(body) < SMALL_BYTES < 20_000_000 < held_bytes(inputs)
    nested = Schema(
        (Column("a", Type(Kind.ARRAY, items=Type(Kind.ARRAY, items=Type(Kind.DOUBLE)))),), Form.RECORD
    )
    lists = b'{"instances":[{"a":[' + b"[]," * 20_000 + b"[]]}]}"
    inputs, _ = JsonDecoder(nested, 10).predict(lists)
    assert len(lists) < SMALL_BYTES < 20_000 * sys.getsizeof([]) < held_bytes(inputs)


def test_wide_answers_are_weighed_before_they_are_written(
    service: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "request_bytes", 1_500_000)
    response = service.post(
        "/v1/predict_batch",
        content=json.dumps([list(ROW.values())] * 3000).encode(),
        headers=JSON,
    )
    assert response.status_code == 200
    probabilities = np.full((3000, 30), 1 / 30)
    manifest = type("Manifest", (), {"classes": [f"class {i}" for i in range(30)]})
    size = _answer_bytes(Output(probabilities=probabilities), manifest, 3000)  # type: ignore[arg-type]
    written = json.dumps(
        [
            {"label": "class 1", "probabilities": dict(zip(manifest.classes, p, strict=True))}
            for p in probabilities.tolist()
        ]
    )  # type: ignore[attr-defined]
    assert 0.5 * len(written) < size < 2 * len(written)


def test_a_request_alone_may_take_more_than_all_together() -> None:
    in_flight = InFlight(100)
    alone, other = Claim(in_flight), Claim(in_flight)
    alone.add(200)
    alone.add(200)
    with pytest.raises(Exception, match="try again"):
        other.add(1)
    alone.release()
    other.add(100)
    assert in_flight.n_bytes == 100


@pytest.mark.parametrize(
    "n_bytes", [0, 1, SENT_BYTES - 1, SENT_BYTES, SENT_BYTES + 1, 3 * SENT_BYTES, 3 * SENT_BYTES + 1]
)
def test_a_long_answer_goes_out_in_pieces(n_bytes: int) -> None:
    body = np.random.default_rng(0).bytes(n_bytes)
    said: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(_send(send, 200, b"text/plain", body, []))
    pieces = said[1:]
    assert b"".join(piece["body"] for piece in pieces) == body
    if n_bytes > SMALL_BYTES:
        assert pieces[-1]["body"] == b"", "it waits until the one before is on its way"
    assert all(len(piece["body"]) <= SENT_BYTES for piece in pieces)
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]


def test_a_client_that_does_not_take_its_answer_keeps_what_it_has_claimed(service: Application) -> None:
    """As uvicorn does, `send` waits while the client has enough to read."""
    n_rows = 60_000
    body = repeated(n_rows)
    in_flight = service.gateway._in_flight

    async def main() -> None:
        reads = asyncio.Event()
        is_stuck = asyncio.Event()
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Future()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and not reads.is_set():
                is_stuck.set()
                await reads.wait()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/predict_batch",
            "headers": [(b"content-type", ARROW.encode())],
        }
        answered = asyncio.create_task(service.gateway(scope, receive, send))
        await asyncio.wait_for(is_stuck.wait(), 30)
        assert in_flight.n_bytes >= len(body) + n_rows * len(ROW) * 8
        reads.set()
        await answered
        assert in_flight.n_bytes == 0

    service._call(main())


@pytest.mark.parametrize("n_rows", [1, ENCODED_ROWS, ENCODED_ROWS + 1, 3 * ENCODED_ROWS])
def test_an_answer_of_many_rows_is_what_it_is_of_one(service: Application, n_rows: int) -> None:
    rows = frame("cancer").iloc[np.arange(n_rows) % 500].to_numpy()
    columns = {name: rows[:, position] for position, name in enumerate(ROW)}
    batch = service.post("/v1/predict_batch", content=json.dumps(rows.tolist()).encode(), headers=JSON)
    records = [dict(zip(ROW, row, strict=True)) for row in rows.tolist()]
    answered = service.predict(records)["predictions"]
    expected = service.post(
        "/v1/predict_batch", content=arrow(pa.table(columns)), headers={"content-type": ARROW}
    )
    expected = np.column_stack(pa.ipc.open_stream(expected.content).read_all().columns)
    np.testing.assert_array_equal(batch.json(), expected)
    np.testing.assert_array_equal([list(row["probabilities"].values()) for row in answered], expected)


REFUSED = {
    "no room": (BODY, JSON, 503),
    "not JSON": (BODY[:-1], JSON, 400),
    "not JSON, and long": (BODY[:-2] * 12, JSON, 400),
    "of an unknown encoding": (BODY, JSON | {"content-encoding": "br"}, 415),
    "not what its encoding says": (BODY, JSON | {"content-encoding": "gzip"}, 400),
    "of an unknown type": (BODY, {"content-type": "text/csv"}, 415),
    "of other columns": (BODY.replace(b"mean radius", b"mean_radius"), JSON, 422),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_lets_go_of_its_body(service: Application, name: str) -> None:
    """An exception that is part of a cycle would keep it until the garbage collector comes by, which it does seldom."""
    body, headers, status = REFUSED[name]
    room = room_for(service, 1) if name == "no room" else contextlib.nullcontext()
    with room:
        assert service.post("/v1/predict", content=body, headers=headers).status_code == status
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(20):
                service.post("/v1/predict", content=body, headers=headers)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()
    assert kept < 6 * len(body), "what is kept of twenty"
