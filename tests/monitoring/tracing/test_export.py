"""A real service sends its spans to a collector: an HTTP server that reads OTLP."""

import gzip
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from tests.monitoring.tracing.test_context import SPAN, TRACE
from tests.support.environment import free_port, make_certificate, wait_until
from tests.support.models import frame
from tests.support.services import running_service

TOKEN = "secret-of-the-collector"  # of this test


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.certificate, key = make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.received: list[ResourceSpans] = []
        self.logins: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_address[1]}"

    def spans(self) -> list[Span]:
        return [span for one in self.received for scope in one.scope_spans for span in scope.spans]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            self.send_error(400)
            return
        self.server.received.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
        self.server.logins.add(self.headers.get("authorization"))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_spans_arrive_from_workers_that_are_confined(collector: Collector, registry_uri: str, tmp_path: Path):
    with running_service(
        tmp_path,
        MLFLOW_TRACKING_URI=registry_uri,
        SERVING_MODEL_NAME="wine",
        SERVING_ALLOW_PICKLE="",
        SERVING_WORKERS="2",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        # In a folder that workers cannot read otherwise.
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(collector.certificate),
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer {TOKEN}",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_SERVICE_NAME="wine-server",
        OTEL_BSP_SCHEDULE_DELAY="100",
    ) as service:
        service.wait_ready()
        rows = frame("wine").iloc[:3].to_dict("records")
        answer = service.ask_anew(
            "POST",
            "/v1/predict",
            json={"instances": rows},
            headers={"traceparent": f"00-{TRACE}-{SPAN}-01"},
        )
        wait_until(lambda: len(collector.spans()) >= 5, 20, "a server span and four children")
        assert service.http.get("/v1/models").status_code == 200  # only predictions are traced
        # The rest is sent at the end.
        service.predict(rows)
    by_name = {span.name: span for span in collector.spans() if span.trace_id.hex() == TRACE}
    assert set(by_name) == {"POST /v1/predict", "decode", "queue", "model", "encode"}
    server = by_name["POST /v1/predict"]
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.parent_span_id.hex() == SPAN
    assert answer.headers["traceparent"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    attributes = {one.key: one.value for one in server.attributes}
    assert attributes["model.version"].string_value == "1"
    assert attributes["model.rows"].int_value == 3
    assert len(collector.spans()) == 10
    (resource,) = {
        next(one.value.string_value for one in sent.resource.attributes if one.key == "service.name")
        for sent in collector.received
    }
    assert resource == "wine-server"
    assert collector.logins == {f"Bearer {TOKEN}"}
    assert "started before the sandbox" not in service.log
    assert TOKEN not in service.log
    written = [path for path in (tmp_path / "bentoml").rglob("*") if path.is_file()]
    assert written
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)


def test_a_collector_that_is_down_disturbs_no_request(registry_uri: str, tmp_path: Path):
    with running_service(
        tmp_path,
        MLFLOW_TRACKING_URI=registry_uri,
        SERVING_MODEL_NAME="wine",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_BSP_MAX_QUEUE_SIZE="512",
    ) as service:
        service.wait_ready()
        rows = frame("wine").iloc[:1].to_dict("records")
        for _ in range(300):
            service.predict(rows)
        wait_until(lambda: "spans batch" in service.log, 20, "the log names the trouble")
    # One of each kind now and then: not one per retry.
    assert 1 <= service.log.count("spans batch") <= 4
    assert service.process.returncode == 0


def test_a_protocol_that_is_not_there_is_one_line(registry_uri: str, tmp_path: Path):
    with running_service(
        tmp_path,
        MLFLOW_TRACKING_URI=registry_uri,
        SERVING_MODEL_NAME="wine",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4317",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
    ) as service:
        service.wait_ready()
        service.predict(frame("wine").iloc[:1].to_dict("records"))
        assert (
            service.log.count("no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf") == 1
        )
