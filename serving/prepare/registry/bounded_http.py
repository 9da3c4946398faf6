"""HTTP requests with a time limit and a size limit for the whole answer.

A socket's timeout applies to each read: a server that sends a byte now and then could keep the client for hours.
"""

import http.client
import io
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_ANSWER_BYTES = 10_000_000

_PIECE_BYTES = 65_536


class TooLarge(TimeoutError):
    """An answer exceeds `MAX_ANSWER_BYTES`: reading it would take too long."""


class Answer(NamedTuple):
    """An HTTP answer."""

    body: bytes
    url: str
    """The URL after redirects."""
    media_type: str


def ask(
    request: urllib.request.Request,
    timeout_seconds: float,
    context: ssl.SSLContext | None,
    connect: Callable[..., http.client.HTTPConnection] | None = None,
) -> Answer:
    """Returns the answer to a request.

    Args:
        request: the request.
        timeout_seconds: for connecting, and then for the whole answer.
        context: of TLS connections.
        connect: creates a connection without TLS; default: `Connection`.

    Raises:
        TimeoutError: it took too long, or exceeds `MAX_ANSWER_BYTES`.
        OSError: there is no connection, or the answer is an error (`urllib.error.HTTPError`).
        http.client.HTTPException: the answer is not HTTP, or is cut off.
    """
    opener = urllib.request.build_opener(_Http(connect or Connection), _Https(context), Redirects)
    with opener.open(request, timeout=timeout_seconds) as answer:
        return Answer(read_body(answer), answer.url, answer.headers.get_content_type())


def read_body(answer: http.client.HTTPResponse) -> bytes:
    """Returns the body of an answer from one of the connections below.

    Raises: as `ask`.
    """
    parts, n_bytes = [], 0
    while part := answer.read1(_PIECE_BYTES):
        parts.append(part)
        n_bytes += len(part)
        if n_bytes > MAX_ANSWER_BYTES:
            raise TooLarge(f"its answer exceeds {MAX_ANSWER_BYTES / 1e6:g} MB")
    if answer.length:  # bytes missing from the declared length
        raise http.client.IncompleteRead(b"".join(parts), answer.length)
    return b"".join(parts)


class _Hurried(io.RawIOBase):
    """Reads a socket up to a deadline."""

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
    """A connection whose timeout, from the request on, applies to the whole answer."""

    response_class = _Response


class TlsConnection(http.client.HTTPSConnection):
    """The same with TLS."""

    response_class = _Response


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; sends the login only to the server it is for."""

    def redirect_request(  # noqa: PLR0917  # urllib's signature
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Returns `urllib`'s next request, without the login for another server."""
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and not _may_have_login(req.full_url, request.full_url):
            for name in ("Authorization", "Cookie"):
                request.remove_header(name)
        return request


def _may_have_login(asked: str, named: str) -> bool:
    """Whether a redirect leads to the same server, or from http to https of the same host.

    Source: `should_strip_auth` in requests/sessions.py, which MLflow's client uses.
    """
    standard = {"http": 80, "https": 443}
    old, new = urllib.parse.urlsplit(asked), urllib.parse.urlsplit(named)
    ports = [parts.port or standard.get(parts.scheme) for parts in (old, new)]
    is_upgrade = (old.scheme, new.scheme, *ports) == ("http", "https", 80, 443)
    return old.hostname == new.hostname and (
        is_upgrade or (old.scheme == new.scheme and ports[0] == ports[1])
    )


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connect: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connect, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext | None) -> None:
        # The default handler loads all certificates at once, even without TLS.
        urllib.request.AbstractHTTPHandler.__init__(self)
        self._tls_context = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(TlsConnection, req, context=self._tls_context)
