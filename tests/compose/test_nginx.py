"""nginx, as compose.yaml runs it, in front of real servers: shares the work, hides failures, and keeps its limits."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scripts import smoke_test
from serving.http import gateway
from tests.compose.balancing import Balancer, running_nginx
from tests.compose.configuring import directive, seconds
from tests.compose.conftest import SLUGGISH, Start, address_of
from tests.support.beside import Beside
from tests.support.environment import ROOT, free_port, wait_until
from tests.support.processes import SYNC, WORKER, child_processes
from tests.support.promotions import ROWS, Registry
from tests.support.services import Service

PREDICT = {"instances": ROWS[:1]}
HIDDEN = {
    "/dashboard",
    "/v1/drift",
    "/v1/feedback",
    "/v1/quality",
    "/metrics",
    "/v1/sync",
    "/livez",
    "/healthz",
}
"""What is asked by whoever runs the servers, and by nobody else."""

LIMIT = 100_000_000


@pytest.fixture(scope="module")
def nginx(servers: list[Service]) -> Iterator[Balancer]:
    with running_nginx(*(address_of(server) for server in servers)) as running:
        yield running


def assert_error(response: httpx.Response, status: int, code: str) -> None:
    """The form of the service: see serving/http/gateway.py."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    content = response.json()
    assert set(content) == {"error", "request_id"}
    assert set(content["error"]) == {"code", "message", "details"}
    assert (content["error"]["code"], content["error"]["details"]) == (code, [])
    assert response.headers.get_list("x-request-id") == [content["request_id"]]


class Callers(Beside):
    """Ask one thing after the other, each over one connection, as long as a `with` statement lasts."""

    def __init__(self, nginx: Balancer, n: int = 8) -> None:
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self._nginx = nginx
        super().__init__(*[self._ask] * n)

    def wait_answers(self, n: int) -> None:
        """Waits until they have got so many more."""
        before = self.statuses.total()
        wait_until(lambda: self.statuses.total() >= before + n, 60, f"{n} answers")

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._nginx.url.removeprefix("http://"), timeout=30)
        with contextlib.closing(connection):
            while not self.over.wait(0.01):
                try:
                    connection.request(
                        "POST", "/v1/predict", json.dumps(PREDICT), {"Content-Type": "application/json"}
                    )
                    response = connection.getresponse()
                    content = response.read()
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(repr(error))
                    connection.close()
                    continue
                self.statuses[response.status] += 1
                if response.status != 200:
                    self.failures.append(content.decode())


def answered_by(nginx: Balancer) -> Counter[str]:
    """How many predictions each server has answered, by the log: the last one that was asked."""
    return Counter(line["servers"].rpartition(" ")[2] for line in nginx.log if line["path"] == "/v1/predict")


def test_the_servers_share_the_requests(nginx: Balancer, servers: list[Service], versions: Registry) -> None:
    answer = nginx.http.post("/v1/predict", json={"instances": ROWS}).json()
    got = [list(one["probabilities"].values()) for one in answer["predictions"]]
    assert got == [pytest.approx(row, abs=1e-9) for row in versions.own_answers("1")]
    before = answered_by(nginx)
    # One after the other: of many at once the server gets fewer that has less of a busy machine, as it should.
    for _ in range(100):
        assert nginx.http.post("/v1/predict", json={"instances": ROWS[:1]}).status_code == 200
    shares = answered_by(nginx) - before
    assert set(shares) == {address_of(server) for server in servers}
    assert min(shares.values()) >= 45
    with Callers(nginx) as callers:
        callers.wait_answers(1000)
    assert callers.failures == []
    assert min((answered_by(nginx) - before - shares).values()) > 100


def test_connections_to_the_servers_are_kept(nginx: Balancer, servers: list[Service]) -> None:
    ports = [f":{int(address_of(server).rpartition(':')[2]):04X}" for server in servers]

    def n_closed() -> int:
        """Connections that ended within the last minute. Source: the kernel's `proc_net_tcp.rst`: 06 is TIME_WAIT."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return sum(row[3] == "06" and row[1].endswith(tuple(ports)) for row in rows)

    before = n_closed()
    for _ in range(50):
        assert nginx.http.post("/v1/predict", json=PREDICT).status_code == 200
    assert n_closed() - before < 10


def test_what_callers_need_is_let_in_and_nothing_else(nginx: Balancer) -> None:
    served = gateway.Gateway(None, None, None, 1)  # type: ignore[arg-type]
    paths = {*served._predictions, *served._pages, *served._commands, gateway.BENTOML_SCHEMA}
    assert paths >= HIDDEN
    for path in paths - HIDDEN:
        assert nginx.http.get(path).status_code in (200, 405), path
    for path in HIDDEN:
        assert_error(nginx.http.get(path), 404, "not_found")
        assert_error(nginx.http.post(path, content=b"{}"), 404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/%6detrics",
        "//metrics",
        "/v1/../metrics",
        "/v1/predict/../../metrics",
        "/static_content/..%2fmetrics",
    ],
)
def test_what_is_hidden_is_under_no_other_name(nginx: Balancer, path: str) -> None:
    connection = http.client.HTTPConnection(nginx.url.removeprefix("http://"), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, b"model_ready" in response.read()) == (404, False)


@pytest.mark.parametrize(
    "path",
    ["//predict", "/v1/./predict", "/v1%2fpredict", "/predict%0a", "/nothing", "/static_content/nothing"],
)
def test_nobody_is_told_what_is_hidden(nginx: Balancer, path: str) -> None:
    """The service's own 404 lists its endpoints."""
    connection = http.client.HTTPConnection(nginx.url.removeprefix("http://"), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
    assert response.status in (404, 405)
    assert b"/metrics" not in content


def test_the_log_is_json_and_holds_no_query(nginx: Balancer) -> None:
    host, _, port = nginx.url.removeprefix("http://").partition(":")
    for number, path in enumerate((b"/%ff?token=hunter2", b"/caf\xe9?token=hunter2", b"/?hunter2")):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = b"GET %b HTTP/1.1\r\nHost: a\r\nX-Request-ID: odd-%d\r\nConnection: close\r\n\r\n"
            connection.sendall(head % (path, number))
            connection.makefile("rb").read()
    assert [nginx.logged(f"odd-{number}")["path"] for number in range(3)] == ["/%ff", "/caf", "/"]
    assert "hunter2" not in "".join(nginx.lines)


def test_the_smoke_test_passes_through_it(nginx: Balancer, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke_test.main([nginx.url, "--v1-only"]) == 0, capsys.readouterr()
    line = "$ .venv/bin/python scripts/smoke_test.py http://127.0.0.1:3000 --v1-only"
    assert line in (ROOT / "docs" / "compose.md").read_text()


def test_bentomls_page_is_there(nginx: Balancer) -> None:
    page = nginx.http.get("/").text
    (script,) = set(re.findall(r'src="\.?/?(static_content/[^"]+\.js)"', page)) or {""}
    assert nginx.http.get(f"/{script}").status_code == 200


def test_the_name_of_a_request_is_the_same_everywhere(nginx: Balancer) -> None:
    theirs = nginx.http.post("/v1/predict", json=PREDICT, headers={"X-Request-ID": "order:17"})
    assert theirs.headers.get_list("x-request-id") == [theirs.json()["request_id"]] == ["order:17"]
    assert nginx.logged("order:17")["status"] == 200
    ours = nginx.http.post("/v1/predict", json=PREDICT, headers={"X-Request-ID": 'a"b'}).json()["request_id"]
    assert re.fullmatch("[0-9a-f]{32}", ours)
    assert nginx.logged(ours)["status"] == 200


def test_the_largest_body_passes(nginx: Balancer) -> None:
    body = json.dumps(PREDICT).encode()
    # Between the row and the end of the rows: beside them there may be less.
    body = body.replace(b"]}", b" " * (LIMIT - len(body)) + b"]}")
    assert len(body) == LIMIT
    response = nginx.http.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200


def test_a_larger_body_is_refused_before_it_is_sent(nginx: Balancer) -> None:
    host, _, port = nginx.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
        connection.sendall(head.encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        content = response.read()
    headers = dict(response.getheaders())
    assert_error(httpx.Response(response.status, headers=headers, content=content), 413, "payload_too_large")


def test_a_larger_body_of_unknown_length_is_refused_too(nginx: Balancer) -> None:
    piece = b" " * 1_000_000
    n_sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal n_sent
        for _ in range(LIMIT // len(piece) + 1):
            n_sent += len(piece)
            yield piece

    try:
        response = nginx.http.post("/v1/predict", content=pieces())
    except httpx.WriteError:  # it closes the connection, perhaps before its answer is read
        assert n_sent > LIMIT
    else:
        assert_error(response, 413, "payload_too_large")


@pytest.mark.parametrize("line", ["nonsense", "GET /%zz HTTP/1.1", f"GET /{'a' * 9000} HTTP/1.1"])
def test_what_is_not_http_gets_the_same_form(nginx: Balancer, line: str) -> None:
    host, _, port = nginx.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{line}\r\nHost: a\r\n\r\n".encode())
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 4")
    assert json.loads(answer.rpartition("\r\n\r\n")[2])["error"]["code"] == "malformed_request"


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        ("TRACE / HTTP/1.1", 405, "method_not_allowed"),
        ("POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: gzip", 501, "malformed_request"),
        ("GET / HTTP/3.0", 505, "malformed_request"),
    ],
)
def test_what_nginx_does_not_do_gets_the_same_form(
    nginx: Balancer, head: str, status: int, code: str
) -> None:
    host, _, port = nginx.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}\r\nHost: a\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        content = response.read()
    headers = dict(response.getheaders())
    assert_error(httpx.Response(response.status, headers=headers, content=content), status, code)
    assert (status == 405) == ("Allow" in headers)


def test_one_address_has_so_many_requests_and_others_have_theirs(nginx: Balancer) -> None:
    n = int(directive("limit_conn callers"))
    host, _, port = nginx.url.removeprefix("http://").partition(":")
    theirs = httpx.HTTPTransport(local_address="127.0.0.2")
    with contextlib.ExitStack() as stack, httpx.Client(base_url=nginx.url, transport=theirs) as caller:
        assert caller.post("/v1/predict", json=PREDICT).status_code == 200

        def begin_request() -> None:
            connection = socket.create_connection(
                (host, int(port)), timeout=10, source_address=("127.0.0.2", 0)
            )
            stack.enter_context(connection)
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")

        def is_one_too_many() -> bool:
            begin_request()  # the caller may have had the place of one that came late, and was refused
            return caller.post("/v1/predict", json=PREDICT).status_code == 503

        for _ in range(n - 1):
            begin_request()
        wait_until(is_one_too_many, 30, "they are too many")
        response = caller.post("/v1/predict", json=PREDICT)
        assert_error(response, 503, "queue_full")
        assert f"{n} requests from this address" in response.text
        assert response.headers["retry-after"]
        assert nginx.http.post("/v1/predict", json=PREDICT).status_code == 200


def test_a_full_disk_is_told_and_small_bodies_pass(servers: list[Service]) -> None:
    addresses = (address_of(server) for server in servers)
    with running_nginx(*addresses, largest_file_bytes=1_000_000) as nginx:
        response = nginx.http.post("/v1/predict", content=b" " * 3_000_000)
        assert_error(response, 503, "queue_full")
        assert response.headers["retry-after"]
        assert nginx.http.post("/v1/predict", json=PREDICT).status_code == 200


def test_an_error_of_the_service_is_not_touched(nginx: Balancer) -> None:
    response = nginx.http.post("/v1/predict", json={"instances": [{"nothing": 1}]})
    assert response.status_code == 422
    assert len(response.json()["error"]["details"]) > 5


def test_one_that_is_killed_costs_no_request(start: Start, servers: list[Service]) -> None:
    """Its model takes so long that requests are under way when it ends."""
    with start(SERVING_MODEL_VERSION=SLUGGISH) as victim:
        victim.wait_ready()
        with running_nginx(address_of(victim), address_of(servers[0])) as nginx:
            with Callers(nginx) as callers:
                callers.wait_answers(20)
                kill(victim)
                callers.wait_answers(20)
            assert callers.failures == []
            again = [line for line in nginx.log if line["servers"].startswith(f"{address_of(victim)}, ")]
            assert {line["status"] for line in again} == {200}
            # Not only those that found nobody any more.
            assert any("while reading response header" in line for line in nginx.lines)


def kill(service: Service) -> None:
    """Ends all its processes at once, as a container's end does."""
    parent = service.process.pid
    for pid in [parent, *child_processes(parent, SYNC), *child_processes(parent, WORKER)]:
        os.kill(pid, signal.SIGKILL)
    service.process.wait(10)


def test_one_that_is_told_to_end_costs_no_request(start: Start, servers: list[Service]) -> None:
    with start() as leaving:
        leaving.wait_ready()
        with running_nginx(address_of(leaving), address_of(servers[0])) as nginx:
            with Callers(nginx) as callers:
                callers.wait_answers(50)
                leaving.process.send_signal(signal.SIGTERM)
                leaving.process.wait(20)
                callers.wait_answers(11)
            assert callers.failures == []
            assert answered_by(nginx)[address_of(leaving)] > 10


def test_the_other_one_answers_for_one_without_a_model(start: Start, servers: list[Service]) -> None:
    with start(SERVING_MODEL_NAME="nobody-has-registered-it") as without:
        with running_nginx(address_of(without), address_of(servers[0])) as nginx:
            statuses = [nginx.http.post("/v1/predict", json=PREDICT).status_code for _ in range(20)]
            assert statuses == [200] * 20
            assert any(line["servers"].startswith(f"{address_of(without)}, ") for line in nginx.log)
        with running_nginx(address_of(without), address_of(without)) as nginx:
            # However often: nobody is shut out afterwards.
            for _ in range(20):
                response = nginx.http.post("/v1/predict", json=PREDICT)
                assert_error(response, 503, "model_not_ready")
                assert response.headers["retry-after"]


def test_nobody_is_there() -> None:
    with running_nginx(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}") as nginx:
        response = nginx.http.post("/v1/predict", json=PREDICT)
        assert_error(response, 502, "no_server")
        assert response.headers["retry-after"]


def test_one_that_hangs_is_given_up_and_nobody_else_is_asked_the_same(servers: list[Service]) -> None:
    """As in the file, one takes much longer than the time in which another would be asked."""
    assert 0 < seconds(directive("proxy_next_upstream_timeout")) < seconds(directive("proxy_read_timeout"))
    times = {"proxy_read_timeout": "1s", "proxy_next_upstream_timeout": "500ms"}
    workers = [pid for server in servers for pid in child_processes(server.process.pid, WORKER)]
    with running_nginx(*(address_of(server) for server in servers), **times) as nginx:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            response = nginx.http.post("/v1/predict", json=PREDICT)
            assert 1 <= time.monotonic() - began < 2
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert_error(response, 504, "timed_out")
        assert ", " not in nginx.logged(response.json()["request_id"])["servers"]


def test_one_that_hangs_costs_one_request_and_not_every_second(servers: list[Service]) -> None:
    times = {"proxy_read_timeout": "1s", "proxy_next_upstream_timeout": "500ms"}
    workers = child_processes(servers[0].process.pid, WORKER)
    with running_nginx(*(address_of(server) for server in servers), **times) as nginx:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            statuses = [nginx.http.post("/v1/predict", json=PREDICT).status_code for _ in range(20)]
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
    assert Counter(statuses) == {504: 1, 200: 19}


def test_two_that_are_busy_are_asked_all_the_same(start: Start) -> None:
    """Each refuses what comes while one request waits, hundreds of times, and shuts nobody out."""
    settings = {"SERVING_MODEL_VERSION": SLUGGISH, "SERVING_MAX_QUEUED_REQUESTS": "1"}
    with start(**settings) as one, start(**settings) as two:
        one.wait_ready()
        two.wait_ready()
        with running_nginx(address_of(one), address_of(two)) as nginx:
            with Callers(nginx, 16) as callers:
                wait_until(lambda: callers.statuses[200] > 10, 60, "both are asked")
            assert set(callers.statuses) == {200, 503}
            assert {json.loads(failure)["error"]["code"] for failure in callers.failures} == {"queue_full"}
            assert nginx.http.post("/v1/predict", json=PREDICT).status_code == 200


def test_a_caller_that_stops_sending_is_sent_away(servers: list[Service]) -> None:
    with running_nginx(*(address_of(server) for server in servers), client_body_timeout="1s") as nginx:
        host, _, port = nginx.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
            began = time.monotonic()
            assert connection.recv(1000) == b""
            assert 0.9 < time.monotonic() - began < 3
        assert [(line["status"], line["servers"]) for line in nginx.log if line["path"] == "/v1/predict"] == [
            (408, "")
        ]
