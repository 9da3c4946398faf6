"""Log lines of requests: slow and failed ones always, a sample of the others. They contain no inputs."""

import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any

from serving.monitoring.tracing.timeline import Timeline

log = logging.getLogger("serving.requests")

MAX_LINES_PER_SECOND = 100
"""Lines of slow and failed requests per worker: an overloaded service must not spend its time on its log."""


class RequestLog:
    """Decides which requests are logged."""

    def __init__(
        self,
        slow_seconds: float = math.inf,
        percent: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the settings.

        Args:
            slow_seconds: from this time on, a request is slow.
            percent: share of the other requests to log.
            clock: for the limit on lines.
        """
        self._slow_seconds = slow_seconds
        self._share = percent / 100
        self._clock = clock
        self._second, self._n_lines, self._n_left_out = 0, 0, 0

    def end(self, timeline: Timeline) -> None:
        """Logs the request, or not."""
        if timeline.status >= 500:
            self._warn("request failed", timeline)
        elif timeline.ended - timeline.started >= self._slow_seconds:
            self._warn("slow request", timeline)
        elif self._share and random.random() < self._share:  # noqa: S311  # no secret depends on it
            log.info("request", extra={"fields": fields(timeline)})

    def _warn(self, message: str, timeline: Timeline) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second, self._n_lines = second, 0
        self._n_lines += 1
        if self._n_lines > MAX_LINES_PER_SECOND:
            self._n_left_out += 1
            return
        shown = fields(timeline)
        if self._n_left_out:
            shown["left_out"], self._n_left_out = self._n_left_out, 0
        log.warning(message, extra={"fields": shown})


def fields(timeline: Timeline) -> dict[str, Any]:
    """Returns the fields of a request's line; without those that are unknown."""
    trace = timeline.trace
    name, version, role = timeline.model or (None, None, None)
    found = {
        "request_id": timeline.request_id,
        "trace_id": trace.trace_id if trace else None,
        "span_id": trace.span_id if trace and timeline.span else None,
        "method": timeline.method,
        "path": timeline.path,
        "status": timeline.status,
        "error_type": timeline.error_type,
        "model_name": name,
        "model_version": version,
        "role": role,
        "rows": timeline.n_rows or None,
        "body_bytes": timeline.body_bytes,
        "duration_ms": _to_ms(timeline.seconds),
    }
    found |= {f"{one.name}_ms": _to_ms(one.ended - one.started) for one in timeline.stages()}
    return {field: value for field, value in found.items() if value is not None}


def _to_ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
