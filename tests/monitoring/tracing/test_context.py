"""`traceparent`, with the standard's own examples: W3C Trace Context, sections 3.2.2 and 4.3."""

import pytest

from serving.monitoring.tracing.context import TraceContext, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_the_examples_of_the_standard_are_read():
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01".encode()) == TraceContext(TRACE, SPAN, 1)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-00".encode()) == TraceContext(TRACE, SPAN, 0)


def test_a_header_of_a_later_version_is_read_as_far_as_this_one_goes():
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings".encode()) == (TRACE, SPAN, 1)


def test_it_is_written_as_it_was_read():
    header = f"00-{TRACE}-{SPAN}-01".encode()
    assert TraceContext(TRACE, SPAN, 1).header == header


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_an_invalid_header_is_ignored(header: str):
    assert parse_traceparent(header.encode()) is None
