"""What observers get: one record of each answered request for predictions."""

from collections.abc import Callable
from typing import Any

import msgspec

from serving.model.prepared import Manifest
from serving.model.schema import Inputs
from serving.runtime import Output


class Finished(msgspec.Struct, frozen=True, gc=False):
    """An answered request.

    Arrays are shared with the request and must not be changed. Their memory is no longer counted against the limit of
    requests in flight, so an observer that keeps many rows copies a part of them.
    """

    request_id: str
    key: bytes | None
    """`X-Routing-Key`."""
    manifest: Manifest
    role: str
    inputs: Inputs
    params: dict[str, Any]
    """Those that the request carried."""
    output: Output
    body_bytes: int
    started: float
    """Start of the processing, from `time.perf_counter`."""
    ended: float


Observer = Callable[[Finished], None]
"""Called on the event loop, before the answer is sent: it only takes notes."""
