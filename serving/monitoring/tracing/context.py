"""The `traceparent` header: the place of a request in its caller's trace.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/, section 3.2.
"""

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)


class TraceContext(NamedTuple):
    """A span of a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    flags: int
    """1: the caller records the trace."""

    @property
    def header(self) -> bytes:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}".encode()


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Returns the caller's span; None if the value is invalid, which the standard says to ignore."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or (match[1] == b"00" and match[5] is not None):
        return None
    return TraceContext(match[2].decode(), match[3].decode(), int(match[4], 16))
