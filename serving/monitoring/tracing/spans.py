"""Spans of requests for predictions, in OpenTelemetry's form. Imported only if they are switched on.

One server span per request, and a child for each stage. The request itself only costs the sampler's decision: spans are
made from its timeline in the exporter's thread.
Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (stable).
"""

import logging
import os
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
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
from serving.monitoring.tracing.timeline import Stage, Timeline
from serving.process.logs import Sparing

DEFAULT_SERVICE_NAME = "model-server"

KNOWN_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))

BATCH_REQUESTS, _BATCH_VARIABLE = 100, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
"""Requests per export, about as many spans as OpenTelemetry's default. While a batch is encoded, requests wait longer."""

MAX_TEXT_CHARS = 256
"""Of a text from the caller."""

_ROOT = Context()
_SCOPE = InstrumentationScope("serving")
_IDS = RandomIdGenerator()
_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)

Attributes = dict[str, Any]


class RequestSpan(ReadableSpan):
    """The server span of a request; its attributes and children are made when it is exported."""

    def __init__(
        self,
        timeline: Timeline,
        context: SpanContext,
        *,
        parent: SpanContext | None,
        attributes: Attributes,
        resource: Resource,
    ) -> None:
        super().__init__(
            timeline.path,
            context,
            parent,
            resource,
            attributes,
            kind=SpanKind.SERVER,
            instrumentation_scope=_SCOPE,
        )
        self._timeline = timeline
        self._epoch_ns = 0
        """The time of `time.perf_counter`'s 0."""

    def end(self) -> None:
        """Notes the time of day, which may be set back later."""
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()

    def complete(self) -> Sequence[ReadableSpan]:
        """Returns this span and its children, with all attributes."""
        timeline = self._timeline
        method = timeline.method if timeline.method in KNOWN_METHODS else "HTTP"
        self._name = f"{method} {timeline.path}"
        self._start_time, self._end_time = self._to_ns(timeline.started), self._to_ns(timeline.ended)
        self._attributes = {**(self._attributes or {}), **_outcome(timeline)}
        self._status = _status(timeline)
        return [self, *(self._child(stage) for stage in timeline.stages())]

    def _child(self, stage: Stage) -> ReadableSpan:
        context, timeline = self._context, self._timeline
        assert context is not None
        return ReadableSpan(
            stage.name,
            SpanContext(
                context.trace_id, _IDS.generate_span_id(), False, context.trace_flags, context.trace_state
            ),
            context,
            self._resource,
            _failure(timeline) if stage.has_failed else {},
            status=_status(timeline) if stage.has_failed else Status(),
            start_time=self._to_ns(stage.started),
            end_time=self._to_ns(stage.ended),
            instrumentation_scope=_SCOPE,
        )

    def _to_ns(self, seconds: float) -> int:
        return self._epoch_ns + round(seconds * 1e9)


class Completing(SpanExporter):
    """Completes the spans of requests before it exports them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports the spans with their children."""
        return self._exporter.export(
            [each for span in spans if isinstance(span, RequestSpan) for each in span.complete()]
        )

    def shutdown(self) -> None:
        """Closes the exporter's connection."""
        self._exporter.shutdown()


class Tracer:
    """Makes the spans of one worker."""

    def __init__(self, processor: SpanProcessor) -> None:
        """Reads sampler and resource from `OTEL_*`.

        Args:
            processor: gets the finished spans.
        """
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: DEFAULT_SERVICE_NAME}))
        # Not the global provider: instrumented libraries, such as BentoML, would add spans of the same requests.
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        self._resource = resource
        self._processor = processor

    def begin(self, timeline: Timeline, scope: Mapping[str, Any]) -> None:
        """Places the request in the caller's trace, or in a new one, and decides whether it gets spans.

        Args:
            timeline: of the request.
            scope: of ASGI.
        """
        caller = timeline.trace
        if caller is None:
            parent, within, trace_id = None, _ROOT, _IDS.generate_trace_id()
        else:
            parent = _remote(caller, scope["headers"])
            within, trace_id = set_span_in_context(NonRecordingSpan(parent), _ROOT), parent.trace_id
        route = timeline.path
        sampled = self._sampler.should_sample(
            within,
            trace_id,
            route,
            SpanKind.SERVER,
            {"http.request.method": timeline.method, "http.route": route, "url.path": route},
        )
        span_id = _IDS.generate_span_id()
        flags = _NOT_SAMPLED
        if sampled.decision is Decision.RECORD_AND_SAMPLE:
            flags = _SAMPLED
            context = SpanContext(trace_id, span_id, False, flags, sampled.trace_state)
            timeline.span = RequestSpan(
                timeline,
                context,
                parent=parent,
                # Not the scope itself: its headers may be long, and are not needed until the export.
                attributes=dict(sampled.attributes or {}) | _connection(scope),
                resource=self._resource,
            )
        timeline.trace = TraceContext(f"{trace_id:032x}", f"{span_id:016x}", flags)

    def end(self, timeline: Timeline) -> None:
        """Queues the request's spans."""
        span = timeline.span
        if isinstance(span, RequestSpan):
            timeline.span = None  # no cycle for the garbage collector
            span.end()
            self._processor.on_end(span)

    def stop(self) -> None:
        """Sends the last spans. Takes as long as the exporter's retries."""
        self._processor.shutdown()


def export_spans(environment: MutableMapping[str, str] = os.environ) -> Tracer:
    """Returns a tracer that sends spans in the background, as `OTEL_EXPORTER_OTLP_*` and `OTEL_BSP_*` say.

    Removes the collector's credentials from the variables, which code inside a model could read.

    Raises:
        ValueError: a variable has a value that OpenTelemetry cannot use.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from requests import Session

    class OwnCertificates(Session):
        """Prefers `OTEL_EXPORTER_OTLP_CERTIFICATE` to `REQUESTS_CA_BUNDLE`, which may be for the registry.

        Source: `Session.merge_environment_settings` in requests, which ignores the session's own setting.
        """

        def merge_environment_settings(
            self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
        ) -> Any:
            return super().merge_environment_settings(
                url, proxies, stream, self.verify if verify is None else verify, cert
            )

    n_requests = None if environment.get(_BATCH_VARIABLE) else BATCH_REQUESTS
    tracer = Tracer(
        BatchSpanProcessor(
            Completing(OTLPSpanExporter(session=OwnCertificates())), max_export_batch_size=n_requests
        )
    )
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


def _status(timeline: Timeline) -> Status:
    """An error is the service's: of 4xx the caller is the cause."""
    return Status(StatusCode.ERROR if timeline.status >= 500 else StatusCode.UNSET)


def _failure(timeline: Timeline) -> Attributes:
    return {} if timeline.error_type is None else {"error.type": timeline.error_type}


def _outcome(timeline: Timeline) -> Attributes:
    found: Attributes = {
        "http.response.status_code": timeline.status,
        "http.response.header.x-request-id": (timeline.request_id,),
        **_failure(timeline),
    }
    if timeline.model is not None:
        found["model.name"], found["model.version"], found["model.role"] = timeline.model
    if timeline.n_rows:
        found["model.rows"] = timeline.n_rows
    if timeline.method not in KNOWN_METHODS:
        found["http.request.method"] = "_OTHER"
    return found


def _connection(scope: Mapping[str, Any]) -> Attributes:
    """Returns the attributes that name server, client and protocol."""
    found: Attributes = {
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if scope.get("client"):
        found["client.address"] = scope["client"][0]
    if scope.get("server"):
        found["server.address"] = scope["server"][0]
        if scope["server"][1]:
            found["server.port"] = scope["server"][1]
    for name, value in scope["headers"]:
        if name == b"user-agent":
            found["user_agent.original"] = value.decode("latin-1")[:MAX_TEXT_CHARS]
    return found


def _remote(caller: TraceContext, headers: Iterable[tuple[bytes, bytes]]) -> SpanContext:
    """Returns the caller's span as a parent."""
    states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    return SpanContext(
        int(caller.trace_id, 16),
        int(caller.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(caller.flags),
        trace_state=TraceState.from_header(states) if states else None,
    )
