"""`serving.process.logs`: lines are short, spared, and hold neither logins nor callers' values."""

import logging
import sys

import msgspec
import pytest

from serving.process.logs import (
    BY_CALLERS,
    MAX_CHARS,
    SPARING_SECONDS,
    JsonFormatter,
    Sparing,
    TextFormatter,
    origin,
)

VALUE = "4111-1111"
"""What a caller sent."""


def refuse(value: str) -> None:
    raise ValueError(f"{value} is out of range")


def record(message: str = "request 1 failed", name: str = "serving.x", **extra: bool) -> logging.LogRecord:
    """A record of an exception whose text holds a caller's value."""
    try:
        refuse(VALUE)
    except ValueError:
        return logging.getLogger(name).makeRecord(
            name, logging.ERROR, __file__, 1, message, (), sys.exc_info(), extra=extra
        )


def lines(record: logging.LogRecord, *, with_values: bool = False) -> list[str]:
    """As both forms have it."""
    decoded = msgspec.json.decode(JsonFormatter(with_values=with_values).format(record))
    return [
        TextFormatter(with_values=with_values).format(record),
        f"{decoded['message']}\n{decoded['exception']}",
    ]


@pytest.mark.parametrize(
    ("name", "extra"), [("serving.x", BY_CALLERS), ("asyncio", {}), ("uvicorn.error", {}), ("concurrent", {})]
)
def test_a_trace_that_a_request_may_have_caused_says_where_and_no_value(name: str, extra: dict[str, bool]):
    for line in lines(record(name=name, **extra)):
        assert "4111" not in line
        assert "in refuse" in line
        assert "ValueError" in line
        assert "SERVING_LOG_TRACES" in line


def test_a_setting_brings_the_values_back():
    assert all("4111" in line for line in lines(record(**BY_CALLERS), with_values=True))


def test_other_traces_say_what_went_wrong():
    assert all("4111" in line for line in lines(record()))


def test_what_logs_in_is_in_no_line():
    for line in lines(record("no answer from https://me:hunter2@host/x?token=abcdef")):
        assert "https://host/x" in line
        assert "hunter2" not in line
        assert "abcdef" not in line


def test_a_message_of_any_length_is_cut():
    for line in lines(record("x" * 1_000_000)):
        assert len(line) < MAX_CHARS + 2000
        assert "990000 more characters" in line


def test_lines_of_one_kind_come_now_and_then_and_are_counted():
    now = [0.0]
    sparing = Sparing(lambda: now[0])
    assert [sparing.admit("a", 1) for _ in range(4)] == ["", None, None, None]
    assert sparing.admit("b", 1) == ""
    now[0] = SPARING_SECONDS - 0.1
    assert sparing.admit("a", 1) is None
    now[0] = SPARING_SECONDS
    assert sparing.admit("a", 1) == " (4 more like it since the last line)"
    now[0] = 100 * SPARING_SECONDS
    assert sparing.admit("a", 1) == ""


def test_the_origin_of_an_exception_is_where_it_was_raised():
    with pytest.raises(ValueError, match="out of range") as caught:
        refuse(VALUE)
    kind, where = origin(caught.value)
    assert kind == "ValueError"
    assert where.startswith("tests/process/test_logs.py:")
    assert where.endswith(" in refuse")


def test_the_origin_of_one_that_was_made_of_another_is_that_ones():
    with pytest.raises(ValueError, match="out of range") as caught:
        refuse(VALUE)
    wrapped = RuntimeError("the model raised")
    wrapped.__cause__ = caught.value
    assert origin(wrapped)[0] == "ValueError"
    assert origin(KeyError("never raised")) == ("KeyError", "nowhere")
