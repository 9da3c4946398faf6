"""`serving.http.connections`: how many connections there may be, and what the log says of it."""

import asyncio
import logging
import resource
from pathlib import Path

import pytest
from uvicorn.server import ServerState

from serving.http import connections as module
from serving.http.connections import Connections
from tests.http.test_connection import GET, in_loop
from tests.http.wire import BODY_SECONDS, HEADER_SECONDS, Wire


def limited(n: int) -> tuple[Connections, ServerState]:
    return Connections(n, HEADER_SECONDS, BODY_SECONDS), ServerState()


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(logging.getLogger("serving"), "propagate", True)
    return caplog


@in_loop
async def test_one_more_than_may_be_is_503(lines: pytest.LogCaptureFixture) -> None:
    own = limited(3)
    wires = [Wire(*own) for _ in range(5)]
    for wire in wires[3:]:
        assert [(answer.status, answer.code) for answer in wire.answers] == [(503, "too_many_connections")]
        assert wire.transport.is_closed
        await wire.send(GET % b"a")
        assert wire.paths == []
    for wire in wires[:3]:
        await wire.send(GET % b"a")
        assert wire.statuses == [200]
    await asyncio.sleep(0.1)
    (line,) = lines.messages
    assert line.startswith("the limit of 3 connections per worker is reached (SERVING_MAX_CONNECTIONS)")
    assert "2 rejected" in line


@in_loop
async def test_one_that_is_idle_makes_room(lines: pytest.LogCaptureFixture) -> None:
    own = limited(3)
    busy, idle, fresh = (Wire(*own) for _ in range(3))
    await busy.send(b"GET")
    await idle.send(GET % b"a")
    idle.connection._idle_since -= 2
    busy.connection._idle_since -= 3
    new = Wire(*own)
    assert [wire.transport.is_closed for wire in (busy, idle, fresh, new)] == [False, True, False, False]
    await new.send(GET % b"a")
    assert new.statuses == [200]
    await asyncio.sleep(0.1)
    assert "0 rejected, 1 idle ones closed" in lines.messages[0]


@in_loop
async def test_the_log_is_not_filled(lines: pytest.LogCaptureFixture) -> None:
    own = limited(1)
    kept = Wire(*own)
    for _ in range(20):
        Wire(*own)
        await asyncio.sleep(0.01)
    assert len(lines.messages) == 1
    assert not kept.transport.is_closed


@in_loop
async def test_time_runs_out_without_anything_being_sent() -> None:
    wire = Wire(Connections(1, 0.05, 0.05))
    await wire.send(b"GET")
    await asyncio.sleep(0.2)
    assert wire.statuses == [408]


def n_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@in_loop
async def test_file_descriptors_limit_connections_where_they_are_fewer(
    monkeypatch: pytest.MonkeyPatch, lines: pytest.LogCaptureFixture
) -> None:
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    n_open = n_open_files()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, n_open + 400))
    own = limited(1000)
    Wire(*own)
    assert asked == [(n_open + 400, n_open + 400)]
    assert 300 < own[0]._limit < 350  # the rest is for files
    assert f"the limit of open files (ulimit -n) is {n_open + 400}" in lines.messages[0]
