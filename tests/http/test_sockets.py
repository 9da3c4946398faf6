"""A real service and raw sockets: what a stranger may cost, and that each answer belongs to what was asked."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.wire import Answered, parse_answers
from tests.support.environment import wait_until
from tests.support.processes import WORKER, child_processes, resident_mb
from tests.support.promotions import NAME, ROWS, Registry
from tests.support.services import Service, running_service

MAX_CONNECTIONS = 60
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = json.dumps({"instances": ROWS[:1]}).encode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("sockets")
    bentoml = folder / "bentoml.yaml"
    bentoml.write_text(
        "services:\n  model_server:\n    traffic: {timeout: 3}\n    http: {cors: {enabled: true}}\n"
    )
    settings = {
        "MLFLOW_TRACKING_URI": Registry(folder / "own", 1.0).uri,
        "SERVING_MODEL_NAME": NAME,
        "SERVING_MAX_BODY_MB": "10",
        "SERVING_HEADER_SECONDS": "1.5",
        "SERVING_BODY_SECONDS": "2.5",
        "SERVING_MAX_CONNECTIONS": str(MAX_CONNECTIONS),
        "SERVING_CORS_ORIGINS": "https://app.example",
        "BENTOML_CONFIG": str(bentoml),
    }
    with running_service(folder, **settings) as running:
        yield running.wait_ready()


@contextlib.contextmanager
def connection(service: Service) -> Iterator[socket.socket]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        yield opened


def read_all(opened: socket.socket) -> bytes:
    """What comes until the other end closes."""
    got = b""
    while data := opened.recv(65536):
        got += data
    return got


def ask(service: Service, *pieces: bytes) -> list[Answered]:
    """The answers on a connection, up to its end."""
    with connection(service) as opened:
        for piece in pieces:
            opened.sendall(piece)
            time.sleep(0.05)
        return parse_answers(read_all(opened))


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path.encode(), b"Host: a", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "endless",
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\n", b"X: %b\r\n" % (b"1" * 60_000)),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nX: ", b"1" * 60_000),
        (b"GET /livez?", b"1" * 60_000),
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n0\r\nX: ",
            b"1" * 60_000,
        ),
        (b"", LIVEZ * 2000),
    ],
    ids=["headers", "header", "target", "trailer", "pipelined"],
)
def test_what_never_ends_is_refused_and_takes_no_memory(
    service: Service, endless: tuple[bytes, bytes]
) -> None:
    (worker,) = child_processes(service.process.pid, WORKER)
    before = resident_mb(worker)
    with connection(service) as opened:
        opened.sendall(endless[0])
        with contextlib.suppress(OSError):
            for _ in range(1000):
                opened.sendall(endless[1])
        with contextlib.suppress(OSError):
            assert b"HTTP/1.1 4" in read_all(opened)
    assert resident_mb(worker) - before < 60
    assert service.http.get("/livez").status_code == 200


def test_a_refusal_is_read_by_who_is_still_sending(service: Service) -> None:
    """Closed at once, the connection would be reset, and the answer lost with it."""
    flood = b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: %b\r\n" % (b"1" * 1_000_000)
    (answer,) = ask(service, flood, b"1" * 100_000, b"1" * 100_000)
    assert (answer.status, answer.code) == (431, "headers_too_large")


def test_413_is_read_by_who_sends_first_and_listens_then(service: Service) -> None:
    with connection(service) as opened:
        opened.sendall(post("/v1/predict", b"1" * 20_000_000))
        (answer,) = parse_answers(read_all(opened))
    assert (answer.status, answer.code) == (413, "payload_too_large")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_java_is_answered(service: Service, is_chunked: bool) -> None:
    """java.net.http sends its body in a packet of its own, and offers h2c with it."""
    request_ = post("/v1/predict", BODY)
    if is_chunked:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        request_ = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    offer = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n\r\n"
    head, _, body = request_.partition(b"\r\n\r\n")
    first, second = ask(service, head + offer, body, post("/v1/predict", BODY, b"Connection: close"))
    assert first.status == second.status == 200
    assert json.loads(first.body)["predictions"] == json.loads(second.body)["predictions"]


def test_a_websocket_is_400_and_nobodys_error(service: Service) -> None:
    n_lines = len(service.log.splitlines())
    handshake = (
        b"GET /v1/predict HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    (answer,) = ask(service, handshake)
    assert (answer.status, answer.code) == (400, "upgrade_refused")
    assert 'type="internal_error"' not in service.http.get("/metrics").text
    assert len(service.log.splitlines()) == n_lines


def test_headers_byte_by_byte_are_408(service: Service) -> None:
    began = time.monotonic()
    with connection(service) as opened:
        for byte in LIVEZ:
            opened.sendall(bytes([byte]))
            time.sleep(0.2)
            if time.monotonic() - began > 1.4:
                break
        (answer,) = parse_answers(read_all(opened))
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert time.monotonic() - began < 6


def test_a_body_that_stays_away_is_408(service: Service) -> None:
    began = time.monotonic()
    (answer,) = ask(service, post("/v1/predict", BODY)[:-1])
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert 2 < time.monotonic() - began < 8


def test_who_says_nothing_is_let_go_without_a_word(service: Service) -> None:
    assert ask(service) == []
    assert [answer.status for answer in ask(service, LIVEZ)] == [200]


def test_answers_come_in_the_order_of_what_was_asked(service: Service) -> None:
    answers = ask(service, post("/v1/predict", BODY) + LIVEZ + b"NOT HTTP\r\n\r\n" + LIVEZ)
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert json.loads(answers[1].body) == {"status": "alive"}


def test_no_more_connections_than_may_be(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            opened = stack.enter_context(connection(service))
            opened.sendall(b"GET")
        wait_until(lambda: [answer.status for answer in ask(service)] == [503], 5, "one more is refused")
        wait_until(
            lambda: "connections per worker is reached (SERVING_MAX_CONNECTIONS)" in service.log,
            10,
            "the log says so",
        )
    assert wait_until(lambda: service.answers("/livez", 200), 10, "it answers again")


def test_an_idle_connection_makes_room(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(connection(service)).sendall(LIVEZ)
        time.sleep(1.1)
        for _ in range(10):
            assert service.ask_anew("GET", "/livez").status_code == 200


def test_a_large_answer_that_nobody_fetches_is_let_go(service: Service) -> None:
    (worker,) = child_processes(service.process.pid, WORKER)
    body = json.dumps({"instances": ROWS[:1] * 50_000}).encode()
    with connection(service) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.sendall(post("/v1/predict", body))
        files = Path(f"/proc/{worker}/fd")
        n_files = len(list(files.iterdir()))
        wait_until(lambda: len(list(files.iterdir())) < n_files, 30, "the connection is cut off")


def test_a_page_of_an_allowed_origin_is_let_in(service: Service) -> None:
    headers = {"Origin": "https://app.example"}
    response = service.http.get("/readyz", headers=headers)
    assert response.headers["access-control-allow-origin"] == "https://app.example"


def test_options_of_bentoml_that_change_nothing_are_told(service: Service) -> None:
    assert "BentoML's option traffic.timeout has no effect here" in service.log
    assert "http.cors.enabled has no effect here; set SERVING_CORS_ORIGINS" in service.log


def test_good_requests_are_answered_beside_bad_ones(service: Service) -> None:
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                ask(service, b"NOT HTTP\r\n\r\n" + LIVEZ * 100)

    threads = [threading.Thread(target=disturb) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        expected = service.predict(ROWS)["predictions"]
        for _ in range(100):
            assert service.predict(ROWS)["predictions"] == expected
    finally:
        stop.set()
        for thread in threads:
            thread.join()
