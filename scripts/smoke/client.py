"""HTTP requests to a service, each with a timeout for the whole answer."""

import contextlib
import http.client
import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from scripts.smoke import Broken, NoAnswer
from serving.prepare.registry.bounded_http import Connection, TlsConnection, TooLarge, read_body

REQUEST_SECONDS = 10.0
"""Default timeout of a request."""


class Answer(NamedTuple):
    """An HTTP answer. Redirects are not followed: no other server gets the headers."""

    path: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def media_type(self) -> str:
        """The media type by the Content-Type header."""
        return self.headers.get_content_type() if "Content-Type" in self.headers else "nothing"

    @property
    def kind(self) -> str:
        """Status and media type, in words."""
        return f"{self.status} ({self.media_type})"

    def json(self) -> Any:
        """Returns the body as JSON.

        Raises:
            Broken: it is not JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise Broken(f"{self.path} does not answer in JSON, but with {self.kind}") from None

    def error(self) -> str:
        """Code and message of an error, in one line."""
        with contextlib.suppress(Broken, KeyError, TypeError):
            error = self.json()["error"]
            return f"{self.status} {error['code']}: {error['message']}"
        return self.kind


class Session:
    """Requests over one connection, which reach one worker."""

    def __init__(
        self, connection: Connection | TlsConnection, prefix: str, headers: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._headers = headers

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """Returns the answer to `GET`, or with a body to `POST`.

        Raises:
            NoAnswer: there is none within `seconds`.
        """
        connection = self._connection
        connection.timeout = seconds
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        started = time.perf_counter()
        try:
            connection.request(
                "GET" if body is None else "POST",
                self._prefix + path,
                body,
                {"User-Agent": "smoke_test.py", **self._headers, **(headers or {})},
            )
            # Closed, so that the connection accepts the next request.
            with connection.getresponse() as response:
                content = read_body(response)
        except (OSError, http.client.HTTPException) as error:
            raise reason(error, seconds) from None
        return Answer(path, response.status, response.headers, content, time.perf_counter() - started)


class Client:
    """Sends requests to one service, with headers for each."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._headers = headers
        # Reading all certificates takes longer than most requests.
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Yields one connection for several requests."""
        connection = (
            TlsConnection(self._host, self._port, context=self._tls)
            if self._tls
            else Connection(self._host, self._port)
        )
        with contextlib.closing(connection):
            yield Session(connection, self._prefix, self._headers)

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """Returns the answer over a new connection, which may reach another worker or pod.

        Raises:
            NoAnswer: there is none within `seconds`.
        """
        with self.session() as session:
            return session.ask(path, body, {"Connection": "close", **(headers or {})}, seconds)


def reason(error: OSError | http.client.HTTPException, seconds: float) -> NoAnswer:
    """Returns in words why there is no answer."""
    match error:
        case socket.gaierror():
            return NoAnswer("its host name cannot be resolved", is_final=True)
        case ssl.SSLCertVerificationError():
            return NoAnswer(f"its certificate is not trusted ({error.verify_message})", is_final=True)
        case ssl.SSLError():
            why = (error.reason or "it closes the connection").replace("_", " ").lower()
            return NoAnswer(f"TLS failed ({why}); is it http, not https?", is_final=True)
        case TooLarge():
            return NoAnswer(str(error), is_final=True)
        case TimeoutError():
            return NoAnswer(f"no complete answer within {seconds:.3g} s")
        case ConnectionRefusedError():
            return NoAnswer("the connection is refused")
        case http.client.RemoteDisconnected() | ConnectionError():
            return NoAnswer("it closed the connection without an answer")
        case http.client.IncompleteRead():
            return NoAnswer("its answer is cut off")
        case http.client.HTTPException():
            return NoAnswer("its answer is not HTTP", is_final=True)
    return NoAnswer(error.strerror or type(error).__name__)
