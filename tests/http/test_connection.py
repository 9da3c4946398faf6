"""`serving.http.connection`: what a connection may send, and that each answer belongs to what was asked."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from serving.http.connection import MAX_CHUNKS, MAX_HEADER_BYTES, MAX_PIPELINED, MAX_TARGET_BYTES
from tests.http.wire import BODY_SECONDS, HEADER_SECONDS, KEEP_ALIVE_SECONDS, Wire

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
READ_BYTES = 262_144
"""The most that an event loop reads at once."""
SIZES = [1000, READ_BYTES]


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(test(*args, **named))

    return run


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"Host: a", b"Content-Length: %d" % len(body), *headers]
    return b"POST /%b HTTP/1.1\r\n%b\r\n\r\n%b" % (path, b"\r\n".join(lines), body)


def chunked(path: bytes, *chunks: bytes, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"POST /%b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (
        path,
        b"".join(parts),
        trailers,
    )


CONVERSATION = (
    post(b"a", b"12345")
    + b"\r\n"
    + chunked(b"b", b"123", b"4567", trailers=b"X-Model-Version: 7\r\n", extension=b";a=b")
    + GET % b"page"
    + post(b"c", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
)
ANSWERS = [b"/a 5", b"/b 7", b"/page 0", b"/c 35"]


@in_loop
async def test_requests_may_come_in_any_pieces() -> None:
    for position in range(1, len(CONVERSATION)):
        wire = Wire()
        await wire.send(CONVERSATION[:position])
        answers = await wire.send(CONVERSATION[position:])
        assert [answer.body for answer in answers] == ANSWERS, position
    wire = Wire()
    answers = await wire.send(CONVERSATION, 1)
    assert [answer.body for answer in answers] == ANSWERS


@in_loop
async def test_a_trailer_does_not_become_a_header() -> None:
    wire = Wire()
    await wire.send(CONVERSATION)
    assert all(name != b"x-model-version" for asked in wire.asked for name, _ in asked.headers)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("before", [b"", GET % b"before", post(b"before", b"1" * 100_000)])
@pytest.mark.parametrize(
    "headers",
    [
        b"X: " + b"1" * 80_000,
        b"1" * 80_000 + b": 1",
        b"\r\n".join(b"X-%d: 1234567890" % number for number in range(5000)),
        b"X: 1\r\n" * 3000 + b"Y: 1",
        b"X: " + b"1" * 4_000_000,
    ],
    ids=["value", "name", "many", "small ones", "megabytes"],
)
@in_loop
async def test_headers_over_the_limit_are_431(size: int, before: bytes, headers: bytes) -> None:
    wire = Wire()
    await wire.send(before + b"GET /asked HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n\r\n" + GET % b"b", size)
    assert [answer.status for answer in wire.answers] == [200] * bool(before) + [431]
    assert wire.answers[-1].code == "headers_too_large"
    assert wire.paths == ["/before"] * bool(before)
    assert wire.transport.is_eof


@pytest.mark.parametrize("size", SIZES)
@in_loop
async def test_headers_that_never_end_are_not_kept(size: int) -> None:
    wire = Wire()
    for data in [b"GET / HTTP/1.1\r\nHost: a\r\n", *[b"X: %b\r\n" % (b"1" * (size - 5))] * 200]:
        await wire.send(data)
    assert [answer.code for answer in wire.answers] == ["headers_too_large"]
    assert sum(len(value) for _, value in wire.connection.headers) < MAX_HEADER_BYTES + READ_BYTES


@pytest.mark.parametrize("size", [1000, 60_100, READ_BYTES])
@in_loop
async def test_headers_below_the_limit_pass_beside_a_large_body(size: int) -> None:
    wire = Wire()
    large = [b"X-%d: %b" % (number, b"1" * 600) for number in range(100)]
    answers = await wire.send((post(b"a", b"1" * 500_000, *large) + GET % b"b") * 2, size)
    assert [answer.body for answer in answers] == [b"/a 500000", b"/b 0"] * 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_bytes", [MAX_TARGET_BYTES, MAX_TARGET_BYTES + 1, 5_000_000])
@in_loop
async def test_target_over_the_limit_is_414(size: int, n_bytes: int) -> None:
    wire = Wire()
    answers = await wire.send(GET % (b"page?" + b"1" * (n_bytes - 6)) + GET % b"b", size)
    if n_bytes <= MAX_TARGET_BYTES:
        assert [answer.body for answer in answers] == [b"/page 0", b"/b 0"]
    else:
        assert [(answer.status, answer.code) for answer in answers] == [(414, "target_too_long")]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "request_",
    [
        chunked(b"a", b"1", trailers=b"X: 1\r\n" * 1_000_000),
        chunked(b"a", b"1", trailers=b"X: %b\r\n" % (b"1" * 5_000_000)),
        chunked(b"a", b"1", b"2", extension=b";" + b"1" * 5_000_000),
    ],
    ids=["trailers", "trailer", "extension"],
)
@in_loop
async def test_what_is_no_body_is_bounded_in_chunked_bodies(size: int, request_: bytes) -> None:
    wire = Wire()
    answers = await wire.send(request_ + GET % b"b", size)
    assert [(answer.status, answer.code) for answer in answers] == [(431, "headers_too_large")]
    assert (wire.paths, wire.gone) == ([], ["/a"])


@in_loop
async def test_many_small_chunks_pass() -> None:
    wire = Wire()
    answers = await wire.send(chunked(b"a", *[b"1"] * 100_000) + GET % b"b", READ_BYTES)
    assert [answer.body for answer in answers] == [b"/a 100000", b"/b 0"]


@in_loop
async def test_endless_small_chunks_do_not() -> None:
    wire = Wire()
    answers = await wire.send(chunked(b"a", *[b"1"] * (MAX_CHUNKS + 1)), READ_BYTES)
    assert [answer.code for answer in answers] == ["malformed_request"]


@in_loop
async def test_answers_keep_their_order_where_a_later_request_is_refused() -> None:
    """A client that got the refusal first would take it for the answer to its first request."""
    wire = Wire()
    wire.is_open.clear()
    await wire.send(GET % b"a" + GET % b"b" + b"NOT HTTP\r\n\r\n" + GET % b"c")
    assert wire.answers == []
    wire.is_open.set()
    await wire.send(GET % b"d")
    assert [answer.body for answer in wire.answers[:2]] == [b"/a 0", b"/b 0"]
    assert [answer.code for answer in wire.answers[2:]] == ["malformed_request"]
    assert wire.paths == ["/a", "/b"]
    assert wire.transport.is_eof


BROKEN_BODY = b"POST /broken HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nXYZ\r\n"


@pytest.mark.parametrize("is_whole", [False, True])
@in_loop
async def test_a_body_that_breaks_off_is_refused_in_its_turn(is_whole: bool) -> None:
    wire = Wire()
    wire.is_open.clear()
    data = GET % b"a" + BROKEN_BODY + GET % b"smuggled"
    await wire.send(data, None if is_whole else 40)
    assert wire.answers == []
    wire.is_open.set()
    await wire.send(b"\r\n")
    assert [answer.status for answer in wire.answers] == [200, 400]
    assert wire.paths == ["/a"]


@in_loop
async def test_a_broken_body_is_answered_once_and_the_application_is_told() -> None:
    wire = Wire()
    await wire.send(BROKEN_BODY[:-5])
    await wire.send(BROKEN_BODY[-5:] + GET % b"smuggled")
    assert [answer.code for answer in wire.answers] == ["malformed_request"]
    assert (wire.paths, wire.gone) == ([], ["/broken"])


@in_loop
async def test_nobody_is_told_to_go_on_with_a_broken_body() -> None:
    wire = Wire()
    await wire.send(BROKEN_BODY.replace(b"Host: a", b"Host: a\r\nExpect: 100-continue"))
    assert [answer.code for answer in wire.answers] == ["malformed_request"]
    assert wire.gone == ["/broken"]


@in_loop
async def test_a_broken_body_of_what_is_answered_already_only_closes() -> None:
    wire = Wire()
    await wire.send(BROKEN_BODY[:-5].replace(b"/broken", b"/page"))
    await wire.send(BROKEN_BODY[-5:] + GET % b"smuggled")
    assert [answer.body for answer in wire.answers] == [b"/page 0"]
    assert wire.transport.is_eof


@in_loop
async def test_requests_that_wait_on_a_connection_are_bounded() -> None:
    wire = Wire()
    wire.is_open.clear()
    await wire.send(GET % b"a" * 9000)
    assert len(wire.connection.pipeline) == MAX_PIPELINED
    wire.is_open.set()
    for _ in range(MAX_PIPELINED):
        await wire.send(GET % b"b")
    assert wire.statuses == [200] * (MAX_PIPELINED + 1) + [400]
    assert set(wire.paths) == {"/a"}


@in_loop
async def test_whoever_is_being_answered_is_told_that_the_client_is_gone() -> None:
    wire = Wire()
    request_ = post(b"a", b"123")
    await wire.send(request_ + request_[:-1])
    wire.transport.abort()
    await wire.wait(0)
    assert wire.gone == ["/a"]
    wire = Wire()
    wire.is_open.clear()
    await wire.send(GET % b"a" * 3)
    wire.transport.abort()
    wire.is_open.set()
    await wire.wait(0)
    assert (wire.paths, wire.transport.sent) == (["/a"], b"")


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA"
INNER = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        post(b"a", INNER, *OFFER.split(b"\r\n")),
        chunked(b"a", INNER).replace(b"Host: a", b"Host: a\r\n" + OFFER, 1),
        post(b"a", INNER, b"upgrade: TLS/1.0, HTTP/2.0", b"connection: keep-alive, upgrade"),
    ],
    ids=["length", "chunked", "several"],
)
@in_loop
async def test_the_offer_of_another_protocol_is_ignored(request_: bytes) -> None:
    """Java's clients offer h2c. What is in the body must not become a request."""
    data = request_ + GET % b"b"
    for position in range(1, len(data)):
        wire = Wire()
        await wire.send(data[:position])
        await wire.send(data[position:])
        assert [(asked.path, asked.body) for asked in wire.asked] == [("/a", INNER), ("/b", b"")], position
        assert [answer.body for answer in wire.answers] == [b"/a 35", b"/b 0"]


@in_loop
async def test_many_offers_in_one_piece() -> None:
    wire = Wire()
    await wire.send(post(b"a", INNER, *OFFER.split(b"\r\n")) * MAX_PIPELINED + GET % b"b")
    for _ in range(MAX_PIPELINED):
        await wire.send(b"\r\n")
    assert wire.paths == ["/a"] * MAX_PIPELINED + ["/b"]


@in_loop
async def test_an_offer_without_a_body() -> None:
    wire = Wire()
    await wire.send(b"GET /a HTTP/1.1\r\nHost: a\r\n" + OFFER + b"\r\n\r\n" + GET % b"b")
    assert wire.paths == ["/a", "/b"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n",
            "upgrade_refused",
        ),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_request"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "malformed_request"),
        (b"GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed_request"),
        (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "malformed_request"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
            "malformed_request",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n1", "malformed_request"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "malformed_request",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, x\r\n\r\n", "malformed_request"),
    ],
)
@in_loop
async def test_what_is_refused_in_our_form(request_: bytes, code: str) -> None:
    wire = Wire()
    await wire.send(GET % b"before" + request_ + GET % b"after")
    assert wire.statuses == [200, 400]
    assert wire.answers[1].code == code
    assert wire.answers[1].headers["connection"] == "close"
    assert wire.paths == ["/before"]


@in_loop
async def test_http_1_0_needs_no_host_and_ends() -> None:
    wire = Wire()
    await wire.send(b"GET /a HTTP/1.0\r\n\r\n")
    assert wire.statuses == [200]
    assert wire.transport.is_closed


@in_loop
async def test_the_caller_is_told_to_go_on_with_its_body() -> None:
    wire = Wire()
    request_ = post(b"a", b"123", b"Expect: 100-continue")
    await wire.send(request_[:-3])
    assert wire.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(request_[-3:])
    assert wire.answers[-1].body == b"/a 3"


@in_loop
async def test_the_id_of_a_refused_request_is_the_callers() -> None:
    wire = Wire()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\nX: 1\r\nBad Header: 1\r\n\r\n")
    assert wire.answers[0].headers["x-request-id"] == "mine"


@in_loop
async def test_headers_that_do_not_come_in_time_are_408() -> None:
    wire = Wire()
    for byte in GET[:9]:
        await wire.send(bytes([byte]))
    await wire.wait(HEADER_SECONDS - 1)
    assert wire.answers == []
    await wire.wait(HEADER_SECONDS + 1)
    assert [(answer.status, answer.code) for answer in wire.answers] == [(408, "request_timeout")]
    await wire.send(b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.paths == []


@pytest.mark.parametrize("is_chunked", [False, True])
@in_loop
async def test_a_body_that_does_not_come_in_time_is_408(is_chunked: bool) -> None:
    wire = Wire()
    request_ = chunked(b"a", b"123") if is_chunked else post(b"a", b"123")
    await wire.send(request_[:-1], 1)
    await wire.wait(BODY_SECONDS - 1)
    assert wire.answers == []
    await wire.wait(BODY_SECONDS + 1)
    assert [(answer.status, answer.code) for answer in wire.answers] == [(408, "request_timeout")]
    assert (wire.paths, wire.gone) == ([], ["/a"])


@pytest.mark.parametrize("data", [b"", b"\r\n" * 100, GET % b"a", GET % b"a" + b"\r\n" * 100])
@in_loop
async def test_a_connection_that_asks_nothing_is_closed_without_a_word(data: bytes) -> None:
    wire = Wire()
    await wire.send(data)
    n_answers = len(wire.answers)
    patience = KEEP_ALIVE_SECONDS if n_answers else HEADER_SECONDS
    await wire.wait(patience - 1)
    assert not wire.transport.is_closed
    await wire.wait(patience + 1)
    assert wire.transport.is_closed
    assert len(wire.answers) == n_answers


@in_loop
async def test_an_answer_may_take_its_time() -> None:
    wire = Wire()
    wire.is_open.clear()
    await wire.send(post(b"a", b"123"))
    await wire.send(post(b"b", b"1" * 100_000))
    assert wire.transport.is_paused
    await wire.wait(10_000)
    wire.is_open.set()
    await wire.wait(10_000)
    assert [answer.body for answer in wire.answers] == [b"/a 3", b"/b 100000"]


@in_loop
async def test_a_request_that_waited_for_its_turn_has_its_time_from_then_on() -> None:
    wire = Wire()
    wire.is_open.clear()
    request_ = post(b"b", b"1" * 100_000)
    await wire.send(GET % b"a")
    await wire.send(request_[:-1])
    await wire.wait(BODY_SECONDS + 1)
    wire.is_open.set()
    await wire.wait(0)
    await wire.send(request_[-1:])
    assert [answer.body for answer in wire.answers] == [b"/a 0", b"/b 100000"]


@in_loop
async def test_who_does_not_fetch_an_answer_is_cut_off() -> None:
    wire = Wire()
    await wire.send(GET % b"a")
    wire.transport.close()  # which waits until all is sent
    await wire.wait(0)
    await wire.wait(BODY_SECONDS - 1)
    assert not wire.transport.is_aborted
    await wire.wait(BODY_SECONDS + 1)
    assert wire.transport.is_aborted


@in_loop
async def test_who_does_not_fetch_an_answer_in_pieces_is_cut_off() -> None:
    wire = Wire()
    wire.is_open.clear()
    await wire.send(GET % b"a")
    wire.connection.pause_writing()
    await wire.wait(BODY_SECONDS - 1)
    assert not wire.transport.is_aborted
    # It has taken a piece, and has enough again with the next.
    wire.connection.resume_writing()
    wire.connection.pause_writing()
    await wire.wait(BODY_SECONDS + 1)
    assert wire.transport.is_aborted


@pytest.mark.parametrize(
    "more",
    [GET % b"b", b"P", (GET % b"b")[:-1], b"NOT HTTP\r\n\r\n", GET % b"b" * 2],
    ids=["request", "byte", "part", "refused", "requests"],
)
def test_who_does_not_fetch_an_answer_is_cut_off_whatever_else_it_sends(more: bytes) -> None:
    @in_loop
    async def scenario() -> None:
        wire = Wire()
        await wire.send(GET % b"a")
        wire.connection.pause_writing()
        await wire.send(more)
        await wire.wait(BODY_SECONDS - 1)
        await wire.send(b"P")
        assert not wire.transport.is_aborted
        await wire.wait(BODY_SECONDS + 1)
        assert wire.transport.is_aborted

    scenario()


@in_loop
async def test_who_has_fetched_an_answer_is_not_cut_off() -> None:
    wire = Wire()
    await wire.send(GET % b"a")
    wire.connection.pause_writing()
    wire.connection.resume_writing()
    wire.is_open.clear()
    await wire.send(GET % b"b")
    await wire.wait(BODY_SECONDS + 1)
    assert not wire.transport.is_closed


@in_loop
async def test_what_nobody_reads_of_a_body_is_let_go_of_with_the_answer() -> None:
    wire = Wire()
    await wire.send(post(b"page", b"1" * 60_000)[:-1])
    assert [answer.body for answer in wire.answers] == [b"/page 0"]
    assert wire.connection.cycle.body == b""


@in_loop
async def test_what_follows_a_refusal_is_thrown_away_for_a_while() -> None:
    wire = Wire()
    await wire.send(b"NOT HTTP\r\n\r\n")
    for _ in range(100):
        await wire.send(b"1" * READ_BYTES)
    assert len(wire.answers) == 1
    assert not wire.transport.is_closed
    await wire.wait(6)
    assert wire.transport.is_closed


@in_loop
async def test_who_is_answered_before_the_end_of_the_body_may_finish_sending() -> None:
    wire = Wire()
    request_ = post(b"page", b"1" * 300_000, b"Connection: close")
    await wire.send(request_ + GET % b"b", 1000)
    assert [answer.body for answer in wire.answers] == [b"/page 0"]
    assert wire.transport.is_eof
    assert not wire.transport.is_closed
    await wire.wait(6)
    assert wire.transport.is_closed


@in_loop
async def test_with_tls_a_refusal_closes_at_once() -> None:
    wire = Wire()
    wire.transport.has_tls = True
    await wire.send(b"NOT HTTP\r\n\r\n")
    assert len(wire.answers) == 1
    assert wire.transport.is_closed
