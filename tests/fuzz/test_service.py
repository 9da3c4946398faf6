"""A real service under damaged bodies and damaged HTTP: no mistake of its own, no stall, no death, bounded memory.

FUZZ_SECONDS and FUZZ_SEED as in `test_bodies`.
"""

import http.client
import io
import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.fuzz.mutations import MAX_BYTES, mutate
from tests.fuzz.watching import Watched
from tests.support.beside import Beside
from tests.support.promotions import NAME, ROWS, Registry
from tests.support.services import Service, running_service

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("FUZZ_SEED", "2026"))

N_SENDERS = 2


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = {"SERVING_MODEL_NAME": NAME, "SERVING_HEADER_SECONDS": "2", "SERVING_BODY_SECONDS": "2"}
    uri = Registry(tmp_path / "own", 1.0).uri
    with running_service(tmp_path, MLFLOW_TRACKING_URI=uri, **settings) as running:
        yield running.wait_ready()


def bodies() -> list[tuple[str, str, bytes]]:
    """Path, media type and body of requests that are answered."""
    matrix = np.array([list(row.values()) for row in ROWS[:3]])
    npy = io.BytesIO()
    np.save(npy, matrix)
    table = pa.Table.from_pylist(ROWS[:3])
    arrow = pa.BufferOutputStream()
    with pa.ipc.new_stream(arrow, table.schema) as writer:
        writer.write_table(table)
    whole = json.dumps({"instances": [*ROWS] * (MAX_BYTES // len(json.dumps(ROWS)))}).encode()
    return [
        ("/v1/predict", "application/json", json.dumps({"instances": ROWS[:2]}).encode()),
        ("/v1/predict", "application/json", whole),
        ("/v1/predict_batch", "application/json", json.dumps(matrix.tolist()).encode()),
        ("/v1/predict_batch", "application/x-npy", npy.getvalue()),
        ("/v1/predict_batch", "application/vnd.apache.arrow.stream", arrow.getvalue().to_pybytes()),
    ]


class Attack(Beside):
    """Sends what is damaged, from several threads, as long as a `with` statement lasts."""

    def __init__(self, service: Service) -> None:
        self.statuses: Counter[int] = Counter()
        self.bad: list[str] = []
        self.n_raw = 0
        host, _, port = service.url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        sends = [self._send_bodies] * N_SENDERS + [self._send_raw]
        super().__init__(*[partial(send, random.Random(SEED + i)) for i, send in enumerate(sends)])

    def _send_bodies(self, chance: random.Random) -> None:
        originals = bodies()
        connection = http.client.HTTPConnection(*self._address, timeout=60)
        while not self.over.is_set():
            path, media_type, body = chance.choice(originals)
            damaged = mutate(body, chance.choice(originals)[2], chance)
            try:
                connection.request("POST", path, damaged, {"Content-Type": media_type})
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.bad.append(repr(error))
                continue
            self.statuses[response.status] += 1
            if response.status >= 500:
                self.bad.append(content.decode(errors="replace"))
        connection.close()

    def _send_raw(self, chance: random.Random) -> None:
        body = json.dumps({"instances": ROWS[:1]}).encode()
        originals = [
            b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body),
            b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
            b"GET /v1/models HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" * 2,
            b"GET /docs.json HTTP/1.0\r\nHost: a\r\nX-Request-Timeout: 1\r\n\r\n",
        ]
        while not self.over.is_set():
            damaged = mutate(chance.choice(originals), chance.choice(originals), chance)
            self.n_raw += 1
            try:
                with socket.create_connection(self._address, timeout=0.2) as opened:
                    opened.sendall(damaged)
                    got = opened.recv(65536)
            except OSError:
                continue  # what is not finished is not answered, and what is too much is cut off
            if got.startswith(b"HTTP/1.1 5"):
                self.bad.append(got[:300].decode(errors="replace"))


def test_a_service_stands_what_is_damaged(service: Service) -> None:
    for path, media_type, body in bodies():
        response = service.http.post(path, content=body, headers={"Content-Type": media_type})
        assert response.status_code == 200, response.text
    watched = Watched(service)
    with Attack(service) as attack:
        until = time.monotonic() + SECONDS
        watched.watch(lambda: time.monotonic() < until)
    print(
        f"{sum(attack.statuses.values())} bodies: {dict(attack.statuses)}; {attack.n_raw} raw requests; {watched}"
    )
    assert attack.bad == []
    watched.check(in_flight_mb=N_SENDERS * 2 * MAX_BYTES / 1e6)
    assert attack.statuses[200]
    assert attack.statuses[400]
    assert attack.statuses[422]
    assert service.http.post("/v1/predict", json={"instances": ROWS[:1]}).status_code == 200
