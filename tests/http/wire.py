"""A connection without a socket: bytes in, answers out, and a clock that is told the time."""

import asyncio
import http.client
import io
import json
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from uvicorn import Config
from uvicorn.server import ServerState

from serving.http.connection import Connection
from serving.http.connections import Connections

HEADER_SECONDS, BODY_SECONDS, KEEP_ALIVE_SECONDS = 10, 60, 5

Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


class Asked(NamedTuple):
    """A request, as the application got it."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Answered(NamedTuple):
    """An answer, as a client gets it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Of an error in our form."""
        document = json.loads(self.body)
        assert set(document) == {"error", "request_id"}
        assert set(document["error"]) == {"code", "message", "details"}
        assert document["request_id"] == self.headers["x-request-id"]
        assert self.headers["content-type"] == "application/json"
        return str(document["error"]["code"])


class _Socket:
    """Bytes for the client of the standard library."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, *_: Any) -> io.BytesIO:
        return self._stream


class _Stream(io.BytesIO):
    def close(self) -> None:
        """An answer closes what it was read from; the next one is in it, too."""


def parse_answers(sent: bytes, methods: str = "POST") -> list[Answered]:
    """What a client reads: independent of how it was written."""
    stream, answers = _Stream(sent.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")), []
    while stream.tell() < len(stream.getbuffer()):
        response = http.client.HTTPResponse(_Socket(stream), method=methods)  # type: ignore[arg-type]
        response.begin()
        answers.append(
            Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        )
    return answers


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_eof = self.is_closed = self.is_aborted = self.is_paused = False
        self.has_tls = False
        self.on_abort: Callable[[], None] = lambda: None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 3000) if name in ("peername", "sockname") else default

    def write(self, data: Any) -> None:
        assert not self.is_eof
        self.sent += bytes(data)

    def can_write_eof(self) -> bool:
        return not self.has_tls

    def write_eof(self) -> None:
        self.is_eof = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True
        self.on_abort()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Wire:
    """One connection to an application that says how many bytes it got."""

    def __init__(self, connections: Connections | None = None, state: ServerState | None = None) -> None:
        self.asked: list[Asked] = []
        self.gone: list[str] = []
        """Paths of requests whose client was gone before they were there whole."""
        self.is_open = asyncio.Event()
        """Whether the application answers."""
        self.is_open.set()
        config = Config(self._answer, interface="asgi3", log_config=None, proxy_headers=False, ws="none")
        config.load()
        self.connection = Connection(
            connections or Connections(100, HEADER_SECONDS, BODY_SECONDS), config, state or ServerState(), {}
        )
        self.transport = Transport()
        self.transport.on_abort = lambda: self.connection.connection_lost(None)
        self.connection.connection_made(self.transport)

    async def _answer(self, scope: Any, receive: Receive, send: Any) -> None:
        body = b""
        if scope["path"] != "/page":  # which is answered before its body is read
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone.append(scope["path"])
                    return
                body += message["body"]
                more = message["more_body"]
        self.asked.append(Asked(scope["method"], scope["path"], list(scope["headers"]), body))
        await self.is_open.wait()
        said = f"{scope['path']} {len(body)}".encode()
        headers = [(b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    async def send(self, data: bytes, size: int | None = None) -> list[Answered]:
        """Sends in pieces of a size; returns all answers so far."""
        size = size or len(data) or 1
        for start in range(0, len(data), size):
            if not self.transport.is_closed:
                self.connection.data_received(data[start : start + size])
                await settle()
        return self.answers

    async def wait(self, seconds: float) -> None:
        """So much later."""
        self.connection.look(self.connection.loop.time() + seconds)
        await settle()

    @property
    def answers(self) -> list[Answered]:
        return parse_answers(self.transport.sent)

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    @property
    def paths(self) -> list[str]:
        """Of all requests that the application was asked."""
        return [asked.path for asked in self.asked]


async def settle() -> None:
    """Lets every task go on until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)
