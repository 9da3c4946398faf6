"""What happens at the start and the end of each request for predictions: its log line, and its spans if they are on."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.monitoring.tracing.context import parse_traceparent
from serving.monitoring.tracing.options import exports_traces, find_trouble
from serving.monitoring.tracing.request_log import RequestLog
from serving.monitoring.tracing.timeline import Timeline
from serving.process.threads import call_aside

if TYPE_CHECKING:
    from serving.monitoring.tracing.spans import Tracer

log = logging.getLogger("serving.traces")

STOP_SECONDS = 3.0
"""How long a worker that ends waits for its last spans to be sent."""


class Requests:
    """The requests of one worker."""

    def __init__(self, request_log: RequestLog, tracer: "Tracer | None" = None) -> None:
        self._log = request_log
        self._tracer = tracer

    def start(self, *, is_first: bool) -> None:
        """Starts to send spans if `OTEL_*` ask for it; after the sandbox, as it starts a thread.

        Args:
            is_first: whether this worker logs what is wrong with the variables.
        """
        if not exports_traces(os.environ):
            return
        trouble = find_trouble(os.environ)
        if trouble is None:
            from serving.monitoring.tracing.spans import export_spans

            try:
                self._tracer = export_spans()
            except ValueError as error:
                trouble = f"OTEL_*: {error}"
        if trouble is not None and is_first:
            log.warning("no traces are sent: %s", trouble)

    async def stop(self) -> None:
        """Sends the last spans; gives up on a collector that does not answer."""
        if self._tracer is not None:
            await asyncio.wait({call_aside(self._tracer.stop)}, timeout=STOP_SECONDS)

    def begin(self, request_id: str, traceparent: bytes | None, scope: Mapping[str, Any]) -> Timeline:
        """Returns the timeline of a new request.

        Args:
            request_id: of the request.
            traceparent: the header.
            scope: of ASGI.
        """
        trace = None if traceparent is None else parse_traceparent(traceparent)
        timeline = Timeline(request_id, scope["method"], scope["path"], trace)
        if self._tracer is not None:
            self._tracer.begin(timeline, scope)
        return timeline

    def end(self, timeline: Timeline) -> None:
        """Logs a request that was answered or abandoned, and ends its spans."""
        timeline.ended = time.perf_counter()
        self._log.end(timeline)
        if self._tracer is not None:
            self._tracer.end(timeline)
