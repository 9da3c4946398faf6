"""Spans of a worker's requests, in OpenTelemetry's own in-memory exporter."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv.attributes import http_attributes, url_attributes, user_agent_attributes
from opentelemetry.trace import SpanKind, StatusCode

from serving.monitoring.tracing.spans import Completing, Tracer
from tests.http.in_process import Application, running_application
from tests.monitoring.tracing.test_context import SPAN, TRACE

FITTING, UNKNOWN = ([{"colour": colour, "size": 1.0}] for colour in ("red", "4111-1111"))


class Traced:
    """A worker whose spans stay in memory."""

    def __init__(self, application: Application, exporter: InMemorySpanExporter) -> None:
        self._application, self._exporter = application, exporter

    def ask(
        self, rows: list[dict[str, object]], **headers: str
    ) -> tuple[ReadableSpan, dict[str, ReadableSpan]]:
        """The server span of a request, and its children by name."""
        response = self._application.post(
            "/v1/predict", json={"instances": rows}, headers={"X-Request-ID": "mine", **headers}
        )
        self.answered = response.headers["traceparent"]
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        (server,) = [span for span in spans if span.kind is SpanKind.SERVER]
        children = [span for span in spans if span is not server]
        assert all(child.parent and child.parent.span_id == server.context.span_id for child in children)
        return server, {child.name: child for child in children}


def is_sampled(traceparent: str) -> bool:
    return bool(int(traceparent[-2:], 16) & 1)


def traced(application: Application) -> Traced:
    exporter = InMemorySpanExporter()
    application.requests._tracer = Tracer(SimpleSpanProcessor(Completing(exporter)))
    return Traced(application, exporter)


@pytest.fixture(scope="module")
def application(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("strict")
    with running_application(
        folder, registry_uri, "strict-categories", SERVING_RUNTIME="native"
    ) as application:
        yield application


def test_a_request_is_a_server_span_with_a_child_for_each_stage(application: Application):
    server, children = traced(application).ask(FITTING, **{"User-Agent": "shop/1.0"})
    assert server.name == "POST /v1/predict"
    assert server.parent is None
    assert server.resource.attributes["service.name"] == "model-server"
    attributes = server.attributes or {}
    assert attributes[http_attributes.HTTP_REQUEST_METHOD] == "POST"
    assert attributes[http_attributes.HTTP_ROUTE] == "/v1/predict"
    assert attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] == 200
    assert attributes[url_attributes.URL_PATH] == "/v1/predict"
    assert attributes[url_attributes.URL_SCHEME] == "http"
    assert attributes[user_agent_attributes.USER_AGENT_ORIGINAL] == "shop/1.0"
    assert attributes["http.response.header.x-request-id"] == ("mine",)
    assert [attributes[f"model.{name}"] for name in ("name", "version", "role", "rows")] == [
        "strict-categories",
        "1",
        "champion",
        1,
    ]
    assert server.status.status_code is StatusCode.UNSET
    assert list(children) == ["decode", "queue", "model", "encode"]
    times = [
        server.start_time,
        *(time for child in children.values() for time in (child.start_time, child.end_time)),
    ]
    # Clocks are read a microsecond apart.
    assert all(
        first <= second + 100_000 for first, second in zip(times, [*times[1:], server.end_time], strict=True)
    )


def test_the_callers_trace_goes_on(application: Application):
    traced_one = traced(application)
    server, _ = traced_one.ask(FITTING, traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="vendor=state")
    assert f"{server.context.trace_id:032x}" == TRACE
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == SPAN
    assert server.context.trace_state.get("vendor") == "state"
    assert traced_one.answered == f"00-{TRACE}-{server.context.span_id:016x}-01"


def test_an_invalid_trace_begins_a_new_one(application: Application):
    server, _ = traced(application).ask(FITTING, traceparent=f"00-{'0' * 32}-{SPAN}-01")
    assert server.parent is None


def test_rows_that_the_model_refuses_mark_its_span_without_their_values(application: Application):
    server, children = traced(application).ask(UNKNOWN)
    assert list(children) == ["decode", "queue", "model"]
    for span in (server, children["model"]):
        assert (span.attributes or {})["error.type"] == "model_refused_input"
        assert span.status.status_code is StatusCode.UNSET  # as the conventions say of 4xx
    assert "error.type" not in (children["decode"].attributes or {})
    assert "4111" not in server.to_json() + children["model"].to_json()


def test_a_request_that_times_out_is_an_error(application: Application):
    server, children = traced(application).ask(FITTING, **{"X-Request-Timeout": "0.000001"})
    assert (server.attributes or {})["error.type"] in ("timed_out", "model_busy")
    assert server.status.status_code is StatusCode.ERROR
    assert list(children.values())[-1].status.status_code is StatusCode.ERROR


def test_the_sampler_of_the_variables_decides(application: Application, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    traced_one = traced(application)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        traced_one.ask(FITTING)
    assert not is_sampled(traced_one.answered)
    traced_one.ask(FITTING, traceparent=f"00-{TRACE}-{SPAN}-01")
    assert traced_one.answered.startswith(f"00-{TRACE}-")
    assert is_sampled(traced_one.answered)
