"""Clients that send what takes a service much memory, some of them without an end or without taking the answer."""

import gzip
import http.client
import json
import socket
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tests.http.messages import ARROW, arrow
from tests.support.beside import Beside

MB = 1_000_000

JSON = "application/json"


class Request(NamedTuple):
    """What one of them sends, again and again."""

    path: str
    media_type: str
    body: bytes
    encoding: str = "identity"
    how: str = "ask"
    """`ask` takes the answer, `hold` does not, `stall` keeps the last byte."""
    headers: str = ""


def requests(row: dict[str, float]) -> dict[str, Request]:
    """The largest that may be sent, and what becomes large."""
    n_rows = 99_000
    legal = b'{"instances":[' + b",".join([json.dumps(row).encode()] * n_rows) + b"]}"
    lists = b'{"instances":[' + b"[[]]," * (19 * MB) + b"[[]]]}"
    words = pa.table(
        {name: pa.array(np.full(n_rows, value)).dictionary_encode() for name, value in row.items()}
    )
    predict, batch = "/v1/predict", "/v1/predict_batch"
    return {
        "rows": Request(predict, JSON, legal),
        "empty lists": Request(predict, JSON, lists),
        "lists in a row": Request(predict, JSON, b'{"instances":[[' + b"[]," * (30 * MB) + b"[]]]}"),
        "words": Request(batch, ARROW, arrow(words)),
        "compressed rows": Request(predict, JSON, gzip.compress(legal, 1), "gzip"),
        "a bomb": Request(predict, JSON, gzip.compress(b'{"instances":[' + b" " * (99 * MB) + b"]}"), "gzip"),
        "rows, unread": Request(predict, JSON, gzip.compress(legal, 1), "gzip", "hold"),
        "never ended": Request(predict, JSON, lists, how="stall"),
        "no time": Request(predict, JSON, legal, headers="X-Request-Timeout: 0.05\r\n"),
    }


class Strangers(Beside):
    """Send from some threads each, as long as a `with` statement lasts."""

    def __init__(self, url: str, row: dict[str, float], n_each: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self.outcomes: Counter[tuple[str, Any]] = Counter()
        """Of each kind: status and code of answers, else what went wrong."""
        sends = [partial(self._send, name, request) for name, request in requests(row).items()]
        super().__init__(*sends * n_each)

    def _send(self, name: str, request: Request) -> None:
        while not self.over.is_set():
            try:
                with socket.create_connection(self._address, timeout=60) as opened:
                    outcome = self._ask(opened, request)
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
            self.outcomes[name, outcome] += 1

    def _ask(self, opened: socket.socket, request: Request) -> Any:
        head = (
            f"POST {request.path} HTTP/1.1\r\nHost: a\r\nContent-Type: {request.media_type}\r\n"
            f"Content-Encoding: {request.encoding}\r\nContent-Length: {len(request.body)}\r\n{request.headers}\r\n"
        )
        opened.sendall(head.encode())
        opened.sendall(request.body[:-1] if request.how == "stall" else request.body)
        if request.how != "ask":
            self.over.wait(5)
            return request.how
        response = http.client.HTTPResponse(opened)
        response.begin()
        answer = response.read()
        return response.status, json.loads(answer)["error"]["code"] if response.status >= 400 else ""
