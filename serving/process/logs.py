"""Logging of our own processes: in the form that BentoML's have, or all of it as JSON.

A line is short and holds nothing that logs in somewhere. Where a request may be the cause, it holds nothing of the
request either: the text of an exception that a model raises often quotes the row.
"""

import datetime as dt
import logging
import sys
import time
import traceback
from collections.abc import Callable, Hashable
from typing import Any, Literal

import msgspec

from serving.redaction import redact

Format = Literal["text", "json"]

MAX_CHARS = 10_000
"""Of a message, and of a trace; what registries and models say may be of any length."""

BY_CALLERS = {"by_caller": True}
"""`extra` of a record with an exception that a request may have caused: its text is left out."""

_STRANGERS = ("asyncio", "uvicorn", "concurrent")
"""Loggers that tell of exceptions that nobody caught, those of requests among them."""


def _cut(text: str) -> str:
    return (
        text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… ({len(text) - MAX_CHARS} more characters)"
    )


def _trace(record: logging.LogRecord, *, with_values: bool) -> str:
    """Returns the trace of a record's exception; without the text where it may hold a caller's values."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ""
    if with_values or not (hasattr(record, "by_caller") or record.name.startswith(_STRANGERS)):
        text = "".join(traceback.format_exception(error)).rstrip()
    else:
        frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        text = f"{frames}\n{type(error).__name__} (its text is left out, SERVING_LOG_TRACES)".lstrip()
    return redact(_cut(text))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the trace of an exception."""

    def __init__(self, *, with_values: bool = False) -> None:
        super().__init__()
        self._with_values = with_values

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(_cut(record.getMessage())),
        }
        if record.exc_info:
            line["exception"] = _trace(record, with_values=self._with_values)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """A line as BentoML's are, and the trace of an exception after it."""

    def __init__(self, *, with_values: bool = False) -> None:
        super().__init__("%(asctime)s [%(levelname)s] [%(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._with_values = with_values

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, or lines."""
        record.message = redact(_cut(record.getMessage()))
        record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        return f"{line}\n{_trace(record, with_values=self._with_values)}" if record.exc_info else line


def configure_logging(form: Format = "text", *, with_values: bool = False) -> None:
    """Sends the `serving` loggers to standard error as text, or to standard output as JSON, one line a record.

    Args:
        form: of the lines.
        with_values: whether traces have the texts of exceptions also where they may hold a caller's values.
    """
    handler = logging.StreamHandler(sys.stdout if form == "json" else sys.stderr)
    formatter = JsonFormatter if form == "json" else TextFormatter
    handler.setFormatter(formatter(with_values=with_values))
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # What libraries say, asyncio among them, would go to standard error as it is.
    logging.lastResort = handler


def configure_bentoml(config: dict[str, Any], *, with_values: bool) -> None:
    """Lets BentoML's own records be JSON, too: those of handlers that it has, and of those that it makes later.

    Args:
        config: BentoML's `SERVER_LOGGING_CONFIG`, which each of its processes applies.
        with_values: as for `configure_logging`.
    """
    config["formatters"] = {
        name: {"()": JsonFormatter, "with_values": with_values} for name in config["formatters"]
    }
    for name in (None, *config["loggers"]):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(JsonFormatter(with_values=with_values))


SPARING_SECONDS = 10
"""Of lines that are the same but for the request there is one in so many seconds."""

MAX_KINDS = 1000
"""How many kinds of lines are told apart."""


class Sparing:
    """Lets one line of a kind through now and then: who sends the same request again and again fills no disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[Hashable, tuple[float, int]] = {}
        """When the last line of a kind was let through, and how many were left out since."""

    def admit(self, *kind: Hashable) -> str | None:
        """Returns what the line ends with, which may be nothing; None where it is to be left out."""
        now = self._clock()
        since, n_left_out = self._kinds.get(kind, (now - SPARING_SECONDS, 0))
        if now - since < SPARING_SECONDS:
            self._kinds[kind] = since, n_left_out + 1
            return None
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        return f" ({n_left_out} more like it since the last line)" if n_left_out else ""


def origin(error: BaseException) -> tuple[str, str]:
    """Returns the type of an exception and where it was raised, `file.py:12 in transform`."""
    while error.__traceback__ is None and error.__cause__ is not None:  # another one was made of it
        error = error.__cause__
    where = "nowhere"
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        where = f"{'/'.join(code.co_filename.rsplit('/', 3)[-3:])}:{line} in {code.co_name}"
    return type(error).__name__, where
