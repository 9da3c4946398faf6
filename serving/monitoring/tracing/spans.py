"""Spans of requests for predictions, in OpenTelemetry's form. Imported only if they are switched on.

One server span per request, and a child for each stage. Children are made at the end, from the request's timeline.
Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (stable).
"""

import logging
import os
import time
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from serving.monitoring.tracing.context import TraceContext
from serving.monitoring.tracing.options import SECRETS
from serving.monitoring.tracing.timeline import Timeline
from serving.process.logs import Sparing

DEFAULT_SERVICE_NAME = "model-server"

KNOWN_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))

_ROOT = Context()

Headers = Iterable[tuple[bytes, bytes]]


class Tracer:
    """Makes the spans of one worker."""

    def __init__(self, processor: SpanProcessor) -> None:
        """Reads sampler, resource and limits from `OTEL_*`.

        Args:
            processor: gets the finished spans.
        """
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: DEFAULT_SERVICE_NAME}))
        # Not the global provider: instrumented libraries, such as BentoML, would add spans of the same requests.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("serving")

    def begin(self, timeline: Timeline, scope: Mapping[str, Any]) -> None:
        """Starts the request's span in the caller's trace, or in a new one.

        Args:
            timeline: of the request.
            scope: of ASGI.
        """
        method = timeline.method if timeline.method in KNOWN_METHODS else "HTTP"
        span = self._tracer.start_span(
            f"{method} {timeline.path}",
            _remote(timeline.trace, scope["headers"]) if timeline.trace else _ROOT,
            SpanKind.SERVER,
            {
                "http.request.method": timeline.method if method != "HTTP" else "_OTHER",
                "http.route": timeline.path,
                "url.path": timeline.path,
                "url.scheme": scope.get("scheme", "http"),
            },
            start_time=_to_epoch_ns(timeline.started),
        )
        own = span.get_span_context()
        timeline.trace = TraceContext(f"{own.trace_id:032x}", f"{own.span_id:016x}", own.trace_flags)
        timeline.span = span
        if span.is_recording():
            span.set_attributes(dict(_connection(scope)))

    def end(self, timeline: Timeline) -> None:
        """Ends the request's span, and makes those of its stages."""
        span = timeline.span
        if span is None or not span.is_recording():
            return
        offset = time.time_ns() - round(time.perf_counter() * 1e9)
        within = set_span_in_context(span, _ROOT)
        for stage in timeline.stages():
            child = self._tracer.start_span(
                stage.name, within, start_time=offset + round(stage.started * 1e9)
            )
            if stage.has_failed:
                _mark_failed(child, timeline)
            child.end(offset + round(stage.ended * 1e9))
        name, version, role = timeline.model or ("", "", "")
        span.set_attributes(
            {
                "http.response.status_code": timeline.status,
                "http.response.header.x-request-id": [timeline.request_id],
                "model.name": name,
                "model.version": version,
                "model.role": role,
                "model.rows": timeline.n_rows,
            }
        )
        if timeline.error_type is not None:
            _mark_failed(span, timeline)
        span.end(offset + round(timeline.ended * 1e9))

    def stop(self) -> None:
        """Sends the last spans. Takes as long as the exporter's retries."""
        self._provider.shutdown()


def export_spans(environment: MutableMapping[str, str] = os.environ) -> Tracer:
    """Returns a tracer that sends spans in the background, as `OTEL_EXPORTER_OTLP_*` and `OTEL_BSP_*` say.

    Removes the collector's credentials from the variables, which code inside a model could read.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    tracer = Tracer(BatchSpanProcessor(OTLPSpanExporter()))
    for name in SECRETS:
        environment.pop(name, None)
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_Spared())
    return tracer


class _Spared(logging.Filter):
    """Limits the lines on a collector that is down, which the exporter repeats with every retry."""

    def __init__(self) -> None:
        super().__init__()
        self._sparing = Sparing()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        return self._sparing.admit(record.msg) is not None


def _mark_failed(span: Span, timeline: Timeline) -> None:
    if timeline.error_type is not None:
        span.set_attribute("error.type", timeline.error_type)
    if timeline.status >= 500:  # of others the caller is the cause
        span.set_status(Status(StatusCode.ERROR))


def _remote(caller: TraceContext, headers: Headers) -> Context:
    """Returns the caller's span as a parent."""
    states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    parent = SpanContext(
        int(caller.trace_id, 16),
        int(caller.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(caller.flags),
        trace_state=TraceState.from_header(states) if states else None,
    )
    return set_span_in_context(NonRecordingSpan(parent), _ROOT)


def _connection(scope: Mapping[str, Any]) -> Iterable[tuple[str, str | int]]:
    """Returns the attributes that name server, client and protocol."""
    yield "network.protocol.version", scope.get("http_version", "1.1")
    if scope.get("client"):
        yield "client.address", scope["client"][0]
    if scope.get("server"):
        address, port = scope["server"]
        yield "server.address", address
        if port:
            yield "server.port", port
    for name, value in scope["headers"]:
        if name == b"user-agent":
            yield "user_agent.original", value.decode("latin-1")


def _to_epoch_ns(seconds: float) -> int:
    return time.time_ns() - round((time.perf_counter() - seconds) * 1e9)
