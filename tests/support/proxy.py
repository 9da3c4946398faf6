"""A real tracking server behind a proxy that gets into trouble when it is told to."""

import contextlib
import itertools
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes, status: bytes = b"200 OK") -> Iterator[bytes]:
    yield b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n" % status
    yield b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)


def drip(head: bytes, drop: bytes, stopped: threading.Event) -> Iterator[bytes]:
    """Sends a piece often enough for any socket's timeout, and never ends."""
    yield head
    while not stopped.wait(0.2):
        yield drop


def silence(stopped: threading.Event) -> Iterator[bytes]:
    stopped.wait()
    yield b""


def late(stopped: threading.Event) -> Iterator[bytes]:
    if not stopped.wait(5):
        yield from answer(b"{}")


def huge(_: threading.Event) -> Iterator[bytes]:
    yield OK + b"\r\n"
    yield from itertools.repeat(b"[" * 1_000_000, 500)


WRONG_TYPES = {"registered_model": {"name": 7, "aliases": [{"alias": 7, "version": []}], "tags": 3}}
WRONG_VERSION = {
    "registered_model": {"name": "wine", "aliases": [{"alias": "production", "version": "1"}]},
    "model_version": {"name": "wine", "version": {}, "creation_timestamp": "soon", "tags": [[]]},
}

BEHAVIOURS: dict[str, Callable[[threading.Event], Iterator[bytes]]] = {
    "500": lambda _: answer(b"{}", b"500 Internal Server Error"),
    "503 of a proxy": lambda _: answer(b"<html>try again</html>", b"503 Service Unavailable"),
    "late": late,
    "never answers": silence,
    "hangs up": lambda _: iter(()),
    "no HTTP": lambda _: iter([b"220 smtp.example.com\r\n"]),
    "body without an end": lambda stopped: drip(OK + b"Content-Length: 1000000\r\n\r\n{", b" ", stopped),
    "header without an end": lambda stopped: drip(OK + b"X-Padding: ", b"x", stopped),
    "huge": huge,
    "cut off": lambda _: iter([OK + b'Content-Length: 1000\r\n\r\n{"registered_model"']),
    "a web page": lambda _: answer(b"<html>welcome</html>"),
    "null": lambda _: answer(b"null"),
    "a list for an object": lambda _: answer(b'{"registered_model": []}'),
    "numbers for strings": lambda _: answer(json.dumps(WRONG_TYPES).encode()),
    "a version of another shape": lambda _: answer(json.dumps(WRONG_VERSION).encode()),
}
"""What is sent to whoever asks, until it is over."""


class Proxy(socketserver.ThreadingTCPServer):
    """Passes everything on to a port of this machine, except while it misbehaves."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.behaviour: str | None = None
        self.victims = b""
        self.n_misbehaved = 0
        self.over = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator["Proxy"]:
        self._listen()
        try:
            yield self
        finally:
            self.over.set()
            self.shutdown()
            self._thread.join()
            self.server_close()

    def _listen(self) -> None:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Nobody listens at its port meanwhile."""
        self.shutdown()
        self._thread.join()
        self.socket.close()
        try:
            yield
        finally:
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_bind()
            self.server_activate()
            self._listen()

    @contextlib.contextmanager
    def misbehaving(self, behaviour: str, victims: bytes = b"") -> Iterator[None]:
        """Does so to everybody who connects meanwhile, and whose request has this in its head."""
        self.n_misbehaved, self.over, self.victims = 0, threading.Event(), victims
        self.behaviour = behaviour
        try:
            yield
        finally:
            self.behaviour = None
            self.over.set()

    def handle_error(self, *_: object) -> None:
        """Whoever has heard enough hangs up."""


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        behaviour = self.server.behaviour
        if behaviour is None or self.server.victims not in self.request.recv(65_536, socket.MSG_PEEK):
            self._pass_on()
            return
        pieces = BEHAVIOURS[behaviour](self.server.over)
        self.server.n_misbehaved += 1
        self.request.recv(65_536)
        for piece in pieces:
            self.request.sendall(piece)

    def _pass_on(self) -> None:
        with socket.create_connection(self.server.target) as there:
            for side in (self.request, there):  # pieces go on as they come
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_copy, args=(there, self.request), daemon=True)
            back.start()
            _copy(self.request, there)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
