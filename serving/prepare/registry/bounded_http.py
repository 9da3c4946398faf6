"""A question over HTTP whose answer comes in time, and in a reasonable size, or not at all.

A socket's timeout is for each piece that it receives: a server that sends a byte now and then would be
listened to for hours.
"""

import http.client
import io
import socket
import ssl
import time
import urllib.request
from typing import Any

MAX_ANSWER_BYTES = 10_000_000

_PIECE_BYTES = 65_536


class TooLarge(TimeoutError):
    """An answer that has more than `MAX_ANSWER_BYTES`, and would take its time."""


def ask(request: urllib.request.Request, timeout_seconds: float, context: ssl.SSLContext | None) -> bytes:
    """Returns the body of the answer, which comes within so many seconds as a whole once there is a connection.

    Raises:
        TimeoutError: it did not, or is larger than `MAX_ANSWER_BYTES`.
        OSError: there is no connection, or the answer is an error (`urllib.error.HTTPError`).
        http.client.HTTPException: the answer is not HTTP, or is cut off.
    """
    opener = urllib.request.build_opener(_Http, _Https(context))
    with opener.open(request, timeout=timeout_seconds) as answer:
        return read_body(answer)


def read_body(answer: http.client.HTTPResponse) -> bytes:
    """Returns the body of an answer that one of the connections below has brought.

    Raises: as `ask`.
    """
    parts, n_bytes = [], 0
    while part := answer.read1(_PIECE_BYTES):
        parts.append(part)
        n_bytes += len(part)
        if n_bytes > MAX_ANSWER_BYTES:
            raise TooLarge(f"its answer has more than {MAX_ANSWER_BYTES / 1e6:g} MB")
    if answer.length:  # of the length that it was to have, so much is missing
        raise http.client.IncompleteRead(b"".join(parts), answer.length)
    return b"".join(parts)


class _Hurried(io.RawIOBase):
    """What a socket receives until a moment."""

    def __init__(self, received: io.RawIOBase, connection: socket.socket, give_up: float) -> None:
        super().__init__()
        self._received = received
        self._connection = connection
        self._give_up = give_up

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._give_up - time.monotonic()
        if left <= 0:
            raise TimeoutError("its answer takes too long")
        self._connection.settimeout(left)
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        give_up = time.monotonic() + (sock.gettimeout() or 0)
        self.fp = io.BufferedReader(_Hurried(self.fp.detach(), sock, give_up))


class Connection(http.client.HTTPConnection):
    """One whose timeout, at the moment of a request, is for the whole answer."""

    response_class = _Response


class TlsConnection(http.client.HTTPSConnection):
    """The same with TLS."""

    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext | None) -> None:
        # Not its own, which reads all certificates at once, also for a server without TLS.
        urllib.request.AbstractHTTPHandler.__init__(self)
        self._tls_context = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(TlsConnection, req, context=self._tls_context)
