"""What servers that stand in for others have in common: real HTTP on a port of their own."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from typing import Self


class Double(http.server.ThreadingHTTPServer):
    """Answers from the beginning to the end of `running`."""

    daemon_threads = True

    def __init__(self, handler: type["Quiet"], host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), handler)
        self.url = f"http://{host}:{self.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def handle_error(self, *_: object) -> None:
        """A caller that has gone is no matter."""


class Quiet(http.server.BaseHTTPRequestHandler):
    """Says nothing on stderr."""

    # Head and body are two writes: on a connection that stays open, the body would wait 40 ms for an acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def answer(self, body: bytes, status: int = 200, media_type: str = "application/json") -> None:
        """Answers with a body as a whole."""
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Nonsense(Quiet):
    """Answers every request in the same way, and not as a tracking server would."""

    def do_GET(self) -> None:
        """Answers."""
        self.answer(b"<html>", media_type="text/html")

    do_POST = do_GET  # noqa: N815  # the name that the server calls


class StrictHost(Quiet):
    """Answers as MLflow 3.17 does under a name that it was not told."""

    def do_GET(self) -> None:
        """Refuses."""
        self.answer(b"Invalid Host header - possible DNS rebinding attack detected", 403, "text/plain")

    do_POST = do_GET  # noqa: N815  # the name that the server calls
