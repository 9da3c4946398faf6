"""`docs/monitoring.md` has every field of a request's line and every attribute of its spans, and no others."""

import re

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.errors import TimedOut
from serving.monitoring.tracing.request_log import RequestLog, fields
from serving.monitoring.tracing.requests import Requests
from serving.monitoring.tracing.spans import Completing, Tracer
from serving.monitoring.tracing.timeline import Timeline
from tests.support.environment import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text()

SCOPE = {
    "method": "POST",
    "path": "/v1/predict",
    "client": ("192.0.2.1", 50_000),
    "server": ("192.0.2.2", 3000),
    "headers": [(b"user-agent", b"shop/1.0")],
}


def documented(heading: str) -> set[str]:
    """The names in the first column of the table in a section."""
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z_.-]+)`", row)}


def complete(requests: Requests) -> Timeline:
    """A request of which everything is known."""
    timeline = requests.begin("id", None, SCOPE)
    timeline.decoding = timeline.queued = timeline.called = timeline.answered = timeline.encoded = (
        timeline.started
    )
    timeline.model, timeline.n_rows = ("churn", "1", "champion"), 1
    timeline.fail(TimedOut(), TimedOut.status)
    return timeline


def test_the_fields_of_a_line() -> None:
    requests = Requests(RequestLog(), Tracer(SimpleSpanProcessor(Completing(InMemorySpanExporter()))))
    timeline = complete(requests)
    timeline.ended = timeline.started
    assert documented("Request logs") == {*fields(timeline), "left_out"}


def test_the_attributes_of_a_span() -> None:
    exporter = InMemorySpanExporter()
    requests = Requests(RequestLog(), Tracer(SimpleSpanProcessor(Completing(exporter))))
    requests.end(complete(requests))
    spans: tuple[ReadableSpan, ...] = exporter.get_finished_spans()
    assert documented("Traces") == {name for span in spans for name in span.attributes or {}}
    assert {span.name for span in spans} == {"POST /v1/predict", "decode", "queue", "model", "encode"}
