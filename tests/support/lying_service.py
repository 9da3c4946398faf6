"""A real service behind somebody who changes what it says, over real HTTP."""

import contextlib
import http.client
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.support.doubles import Double, Quiet


class Asked(NamedTuple):
    """A request."""

    path: str
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes

    @property
    def n_instances(self) -> int:
        """How many rows of JSON are in it; 0 where that is not what it holds."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return len(json.loads(self.body)["instances"])
        return 0


class Said(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes


Lie = Callable[[Asked, Said], Said | None]
"""Returns what is said instead; None lets the answer be."""


class LyingService(Double):
    """Passes requests on, and answers back, changed where the lie has something to change."""

    def __init__(self, url: str, lie: Lie) -> None:
        super().__init__(_Handler)
        self.target = url.removeprefix("http://")
        self.lie = lie
        self.asked: list[Asked] = []


class _Handler(Quiet):
    server: LyingService
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        # One connection behind each: who looks at /metrics has to meet the worker that was asked before.
        self._behind = http.client.HTTPConnection(self.server.target, timeout=60)

    def finish(self) -> None:
        self._behind.close()
        super().finish()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.server.asked.append(asked)
        self._behind.request(self.command, self.path, body or None, dict(self.headers.items()))
        answer = self._behind.getresponse()
        honest = Said(answer.status, dict(answer.getheaders()), answer.read())
        said = self.server.lie(asked, honest) or honest
        self.send_response_only(said.status)
        for name, value in said.headers.items():
            if name.lower() not in {"content-length", "connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(said.body)))
        self.end_headers()
        self.wfile.write(said.body)

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()


def at(path: str, lie: Lie) -> Lie:
    """A lie about one path only."""
    return lambda asked, said: lie(asked, said) if asked.path == path else None


def edited(path: str, edit: Callable[[Any], Any]) -> Lie:
    """JSON of which a part is another; it is told where the status is 200."""

    def lie(_: Asked, said: Said) -> Said | None:
        if said.status != 200:
            return None
        value = json.loads(said.body)
        edit(value)
        return said._replace(body=json.dumps(value).encode())

    return at(path, lie)


def instead(status: int, body: bytes, media_type: str = "application/json", **headers: str) -> Lie:
    """Always the same answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda *_: Said(status, {"Content-Type": media_type, **named}, body)
