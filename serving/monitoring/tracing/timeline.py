"""When one request reached which stage, and how it ended."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from serving.errors import ServingError
from serving.monitoring.tracing.context import TraceContext

CLIENT_GONE = 499
"""Status in logs and spans of a request whose client disconnected. nginx uses the same."""


class Stage(NamedTuple):
    """A stage that the request reached."""

    name: str
    started: float
    ended: float
    has_failed: bool
    """Whether the request ended in it."""


class Timeline:
    """The times of one request, from `time.perf_counter`; 0 if it did not get there."""

    # Attributes of the class: setting each for every request would take longer.
    decoding = queued = called = answered = encoded = ended = 0.0
    body_bytes = n_rows = 0
    status = CLIENT_GONE
    error_type: str | None = None
    model: tuple[str, str, str] | None = None
    """Name, version and role."""
    span: object = None
    """Its span, if it is recorded: of OpenTelemetry, which is imported only then."""

    def __init__(
        self, request_id: str = "", method: str = "", path: str = "", trace: TraceContext | None = None
    ) -> None:
        """Starts now.

        Args:
            request_id: of the request.
            method: of HTTP.
            path: of the endpoint.
            trace: of the caller.
        """
        self.started = time.perf_counter()
        self.request_id = request_id
        self.method = method
        self.path = path
        self.trace = trace

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of the answer that say where to find the request."""
        request_id = (b"x-request-id", self.request_id.encode())
        return [request_id] if self.trace is None else [request_id, (b"traceparent", self.trace.header)]

    def fail(self, error: ServingError, status: int) -> None:
        """Notes the error that is answered, and the status that its protocol gives it."""
        self.status, self.error_type = status, error.code
        self.model = self.model or error.model

    @property
    def seconds(self) -> float:
        """From the headers of the request to the end of its answer."""
        return self.ended - self.started

    def stages(self) -> Iterator[Stage]:
        """Returns the stages that the request reached, in order."""
        starts = (self.decoding, self.queued, self.called, self.answered)
        ends = (self.queued, self.called, self.answered, self.encoded)
        for name, started, ended in zip(("decode", "queue", "model", "encode"), starts, ends, strict=True):
            if not started:
                return
            yield Stage(name, started, ended or self.ended, not ended)
