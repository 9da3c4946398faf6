"""When traces are sent, by OpenTelemetry's own variables."""

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.monitoring.tracing.options import certificate_files, exports_traces, find_trouble
from serving.monitoring.tracing.request_log import RequestLog
from serving.monitoring.tracing.requests import Requests
from tests.support.environment import ROOT, clean_environment

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def test_an_endpoint_switches_traces_on():
    assert not exports_traces({"OTEL_SERVICE_NAME": "churn"})
    assert not exports_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": ""})
    assert exports_traces(ENDPOINT)
    assert exports_traces({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"})
    assert not exports_traces(ENDPOINT | {"OTEL_SDK_DISABLED": "True"})
    assert not exports_traces(ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"})


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: expected"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: expected otlp or none, got zipkin"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL"),
    ],
)
def test_what_cannot_be_done_is_named(variables: dict[str, str], part: str):
    assert find_trouble(ENDPOINT) is None
    assert part in (find_trouble(ENDPOINT | variables) or "")


def test_workers_may_read_the_exporters_certificates():
    files = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "/tls/ca.pem",
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "/tls/key",
    }
    assert set(certificate_files(ENDPOINT | files)) == {Path("/tls/ca.pem"), Path("/tls/key")}


def test_a_value_that_opentelemetry_cannot_use_stops_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "50")
    with caplog.at_level(logging.WARNING, "serving.traces"):
        Requests(RequestLog()).start(is_first=True)
    assert "no traces are sent: OTEL_*: max_export_batch_size must be less than or equal to" in caplog.text


def test_the_collectors_login_leaves_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer secret")
    requests = Requests(RequestLog())
    requests.start(is_first=True)
    asyncio.run(requests.stop())
    assert "OTEL_EXPORTER_OTLP_HEADERS" not in os.environ


def test_nothing_of_opentelemetry_is_imported_without_an_endpoint():
    code = (
        "import sys, service, serving.http.gateway as gateway\n"
        "gateway.Gateway(None, None, None, 1)._requests.start(is_first=True)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    env = {name: value for name, value in clean_environment().items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "[]"
