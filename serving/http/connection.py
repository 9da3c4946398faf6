"""One HTTP connection, with limits on the size and time of a request.

A subclass of uvicorn's protocol for httptools, which has no such limits. A rejected request is answered in our
error format, after the requests before it. Then the connection is closed: where the next request begins is unknown.

Source: uvicorn/protocols/http/httptools_impl.py, httptools/parser/parser.pyx.
"""

import asyncio
import math
from enum import IntEnum
from functools import partial
from typing import Any

import httptools
from uvicorn import config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.errors import (
    HeadersTooLarge,
    MalformedRequest,
    RequestTimeout,
    ServingError,
    TargetTooLong,
    TooManyConnections,
    UpgradeRefused,
)
from serving.http.answers import encode_error, request_id_of
from serving.http.connections import Connections

MAX_HEADER_BYTES = 65_536
"""Of all headers of a request; the same limit again for trailers, or for the bytes between two chunks of a body."""

MAX_HEADERS = 1000
"""Each takes a hundred bytes of memory in addition to its text."""

MAX_TARGET_BYTES = 16_384
"""Of the path with its query."""

MAX_CHUNKS = 1_000_000
"""Of a body: each takes about a microsecond, however small it is."""

MAX_PIPELINED = 64
"""Requests that may be queued on a connection."""

LINGER_SECONDS = 5
"""How long input after the last answer is read and discarded: after an immediate close, many clients that are still
sending would lose the answer. Source: RFC 9112, section 9.6."""


class Phase(IntEnum):
    """What a connection is waiting for."""

    IDLE = 0
    """The first byte of a request."""
    HEAD = 1
    """The rest of its headers."""
    BODY = 2
    """The rest of its body."""
    ANSWER = 3
    """The application."""
    CLOSING = 4
    """The end: no more input is parsed."""


IDLE, HEAD, BODY, ANSWER, CLOSING = Phase


class Connection(HttpToolsProtocol):
    """A connection with limits."""

    def __init__(self, connections: Connections, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._all = connections
        self._phase: Phase = IDLE
        self._deadline = math.inf
        """Of the phase, in seconds of the event loop."""
        self._write_deadline = math.inf
        """For the client to read the answer, whatever it sends meanwhile."""
        self._idle_since = 0.0
        self._n_read = 0
        """Bytes of the piece that is being parsed."""
        self._n_quiet = 0
        """Bytes since the last complete request or piece of its body."""
        self._n_hosts = 0
        self._n_chunks = 0
        self._is_offer = False
        """Whether the request offers an upgrade to another protocol."""
        self._answered: RequestResponseCycle | None = None
        """The application's current or last request."""
        self._refusal: bytes | None = None
        """The error to send once the requests before it are answered."""

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admits the connection, or rejects it above the limit."""
        super().connection_made(transport)
        self.write, self.is_closing = transport.write, transport.is_closing
        self._idle_since = self.loop.time()
        if self._all.admit(self.connections, self.loop):  # type: ignore[arg-type]
            self._deadline = self._idle_since + self._all.header_seconds
        else:
            self._phase = CLOSING
            transport.write(self._encode(TooManyConnections()))
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Parses the data, unless an earlier part was rejected."""
        if self._phase is CLOSING:
            return
        self._n_read = len(data)
        self._n_quiet += self._n_read
        try:
            self._parse(data)
            if self._n_quiet > MAX_HEADER_BYTES and self._phase is not ANSWER:
                raise _headers_too_large()
        except ServingError as error:
            self._refuse(error)
            return
        if self._deadline == math.inf:
            if self._phase is HEAD:
                self._deadline = self.loop.time() + self._all.header_seconds
            elif self._phase is BODY:
                self._deadline = self.loop.time() + self._all.body_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """Notifies the request being answered, which may not be the last one received."""
        if self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Gives the client the body timeout to read the answer."""
        super().pause_writing()
        if self._write_deadline == math.inf:  # one deadline for all pieces of an answer
            self._write_deadline = self.loop.time() + self._all.body_seconds

    def resume_writing(self) -> None:
        """Ends the client's deadline once the whole answer is on its way."""
        super().resume_writing()
        if self._answered is None or self._answered.response_complete:
            self._write_deadline = math.inf

    # What the parser calls

    def on_message_begin(self) -> None:
        """Called at the first byte of a request."""
        super().on_message_begin()
        self._phase = HEAD
        self._deadline = math.inf
        self._n_hosts = 0
        self._n_chunks = 0

    def on_url(self, url: bytes) -> None:
        """Called with a piece of the target."""
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            raise TargetTooLong(MAX_TARGET_BYTES)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called with a header, or with a trailer, which is ignored."""
        if self._phase is not HEAD:
            return
        name = name.lower()
        if name == b"host":
            self._n_hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called before the body."""
        headers, parser = self.headers, self.parser
        if (self._n_quiet > MAX_HEADER_BYTES or self._n_read > MAX_HEADER_BYTES) and (
            sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES
        ):
            raise _headers_too_large()
        if len(headers) > MAX_HEADERS:
            raise HeadersTooLarge(f"there are more than {MAX_HEADERS} headers")
        self._is_offer = parser.should_upgrade()
        if self._is_offer:
            if parser.get_method() == b"CONNECT":
                raise MalformedRequest("CONNECT is not supported: this is not a proxy")
            if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in headers):
                raise UpgradeRefused
            return
        if self._n_hosts != 1 and (self._n_hosts > 1 or parser.get_http_version() != "1.0"):
            raise MalformedRequest("expected one Host header")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise MalformedRequest(
                f"more than {MAX_PIPELINED} requests were sent before the first was answered"
            )
        super().on_headers_complete()
        self.cycle.transport = self  # type: ignore[assignment]  # only writes and closes
        self._phase = BODY
        self._deadline = math.inf
        self._n_quiet = 0

    def on_chunk_header(self) -> None:
        """Called with the size of a chunk."""
        self._n_chunks += 1
        if self._n_chunks > MAX_CHUNKS:
            raise MalformedRequest(f"the body has more than {MAX_CHUNKS} chunks")

    def on_body(self, body: bytes) -> None:
        """Called with a piece of the body."""
        self._n_quiet = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Called at the end of a request."""
        if self._is_offer:
            return
        self._n_quiet = 0
        cycle = self.cycle
        if cycle.response_complete:
            self._wait_for_request()
            return
        self._phase = ANSWER
        cycle.more_body = False
        cycle.message_event.set()

    # What the answer calls, beside `write` and `is_closing`

    def close(self) -> None:
        """Closes after the last answer, or after one sent before the whole body has arrived."""
        if self._phase is BODY:
            self._phase = CLOSING
            self.flow.resume_reading()
            self._say_last(b"")
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Continues with the next request."""
        self.server_state.total_requests += 1
        if self._answered is not None:
            self._answered.body = bytearray()  # the unread part
        if not self.flow.write_paused:
            self._write_deadline = math.inf
        if self.transport.is_closing() or (self._phase is CLOSING and self._refusal is None):
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if self._phase is BODY and cycle is self.cycle:
                self._deadline = self.loop.time() + self._all.body_seconds
            self._start_asgi_task(cycle, app)
        elif self._refusal is not None:
            self._say_last(self._refusal)
        elif self._phase is ANSWER:
            self._wait_for_request()

    # What `Connections` calls

    @property
    def idle_since(self) -> float | None:
        """When it was opened or answered last; None while a request is under way."""
        return self._idle_since if self._phase is IDLE else None

    def look(self, now: float) -> None:
        """Ends a request or connection that has timed out."""
        if self.flow.write_paused and now > self._write_deadline:
            self.transport.abort()
        elif self.transport.is_closing():
            # Output is still buffered.
            if self._phase is not CLOSING or self._deadline == math.inf:
                self._phase = CLOSING
                self._deadline = now + self._all.body_seconds
            elif now > self._deadline:
                self.transport.abort()
        elif now <= self._deadline:
            return
        elif self._phase in (HEAD, BODY):
            if self.flow.read_paused:  # the delay is ours
                self._deadline = math.inf
                return
            if self._phase is HEAD:
                self._refuse(RequestTimeout("header", self._all.header_seconds))
            else:
                self._refuse(RequestTimeout("body", self._all.body_seconds))
        elif self._phase is not ANSWER:
            self.transport.close()

    def close_idle(self) -> None:
        """Closes it to make room for another."""
        self.transport.close()

    # Our own

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _wait_for_request(self) -> None:
        self._phase = IDLE
        self._idle_since = self.loop.time()
        self._deadline = self._idle_since + self.timeout_keep_alive

    def _parse(self, data: bytes) -> None:
        """Feeds the parser.

        Raises:
            ServingError: from the parser, or from a callback.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                # The parser expects another protocol now, but we ignore the upgrade.
                data = self._parse_without_offer() + data[offer.args[0] :]
            except httptools.HttpParserCallbackError as error:
                if isinstance(error.__context__, ServingError):
                    raise error.__context__ from None
                raise MalformedRequest("the target of the request is not a path") from None
            except httptools.HttpParserError as error:
                raise MalformedRequest(f"the request is not valid HTTP: {error}") from None
            else:
                return

    def _parse_without_offer(self) -> bytes:
        """Returns the headers without `Upgrade`, for a new parser.

        A server may ignore an upgrade. Source: RFC 9110, section 7.8; Java's clients send `Upgrade: h2c` by default.
        """
        first = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = _new_parser(self)
        self._n_quiet = 0
        return b"".join([b"%b %b HTTP/%b\r\n" % first, *lines, b"\r\n"])

    def _refuse(self, error: ServingError) -> None:
        """Answers the request being read with an error, in its turn, and parses no more input."""
        answer, phase, cycle = self._encode(error), self._phase, self.cycle
        self._phase = CLOSING
        self._deadline = math.inf
        self.flow.resume_reading()  # and discard it, so that the client gets the answer
        if phase is BODY and self.pipeline:
            self.pipeline.popleft()  # it waits for its turn
            self._refusal = answer
        elif phase is BODY and cycle.response_complete:
            self._say_last(b"")
        elif phase is BODY and cycle.response_started:
            self.transport.close()
        elif phase is BODY:
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            self._say_last(answer)
        elif cycle is None or cycle.response_complete:  # type: ignore[redundant-expr]  # None before the first request
            self._say_last(answer)
        else:
            self._refusal = answer

    def _say_last(self, answer: bytes) -> None:
        self.transport.write(answer)
        if not self.transport.can_write_eof():  # as with TLS
            self.transport.close()
            return
        self.transport.write_eof()
        self._deadline = self.loop.time() + LINGER_SECONDS

    def _encode(self, error: ServingError) -> bytes:
        request_id = request_id_of(self.headers if self._phase in (HEAD, BODY) else ())
        body = encode_error(error, request_id)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *error.headers,
            (b"x-request-id", request_id.encode()),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"headers or trailers have more than {MAX_HEADER_BYTES} bytes")


def _new_parser(connection: Connection) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(connection)
    # As in uvicorn: else data after a request with `Connection: close` would prevent its answer.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def use_limits(connections: Connections) -> None:
    """Makes the server that this process starts next use `Connection` for HTTP, and no WebSocket.

    BentoML has no option for this. Source: `uvicorn.config.Config.load`, `_bentoml_impl.worker.service`.
    """
    config.HTTP_PROTOCOLS["auto"] = partial(Connection, connections)  # type: ignore[assignment]
    config.WS_PROTOCOLS["auto"] = None
