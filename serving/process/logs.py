"""Logging of our processes: in BentoML's format, or all as JSON.

Lines are short and contain no credentials. If a request may be the cause, they contain no values of it either: a model's
exception message often quotes the row.
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
"""Of a message, and of a traceback; texts from registries and models may have any length."""

BY_CALLERS = {"by_caller": True}
"""`extra` of a record with an exception that a request may have caused: its message is left out."""

_STRANGERS = ("asyncio", "uvicorn", "concurrent")
"""Loggers that report uncaught exceptions, including those of requests."""


def _cut(text: str) -> str:
    return (
        text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… ({len(text) - MAX_CHARS} more characters)"
    )


def _trace(record: logging.LogRecord, *, with_values: bool) -> str:
    """Returns the traceback of a record's exception; without the message if it may contain a caller's values."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ""
    if with_values or not (hasattr(record, "by_caller") or record.name.startswith(_STRANGERS)):
        text = "".join(traceback.format_exception(error)).rstrip()
    else:
        frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        text = f"{frames}\n{type(error).__name__} (message left out, SERVING_LOG_TRACES)".lstrip()
    return redact(_cut(text))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the traceback of an exception, and the record's fields."""

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
        line |= getattr(record, "fields", {})
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """A line in BentoML's format with the record's fields, followed by the traceback of an exception."""

    def __init__(self, *, with_values: bool = False) -> None:
        super().__init__("%(asctime)s [%(levelname)s] [%(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._with_values = with_values

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, or lines."""
        fields = getattr(record, "fields", {})
        message = " ".join([record.getMessage(), *(f"{name}={value}" for name, value in fields.items())])
        record.message = redact(_cut(message))
        record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        return f"{line}\n{_trace(record, with_values=self._with_values)}" if record.exc_info else line


def configure_logging(form: Format = "text", *, with_values: bool = False) -> None:
    """Sends the `serving` loggers to standard error as text, or to standard output as JSON, one line per record.

    Args:
        form: of the lines.
        with_values: whether tracebacks include exception messages that may contain a caller's values.
    """
    handler = logging.StreamHandler(sys.stdout if form == "json" else sys.stderr)
    formatter = JsonFormatter if form == "json" else TextFormatter
    handler.setFormatter(formatter(with_values=with_values))
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # Otherwise records of libraries, including asyncio, would go to standard error unformatted.
    logging.lastResort = handler


def configure_bentoml(config: dict[str, Any], *, with_values: bool) -> None:
    """Formats BentoML's own records as JSON, too: of its handlers now and later.

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
"""Minimum interval between lines that differ only in the request."""

MAX_KINDS = 1000
"""Kinds of lines tracked."""


class Sparing:
    """Rate-limits lines of one kind: repeated requests must not fill the disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[Hashable, tuple[float, int]] = {}
        """When the last line of a kind was logged, and how many were left out since."""

    def admit(self, *kind: Hashable) -> str | None:
        """Returns the end of the line, which may be empty; None to leave the line out."""
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
    while error.__traceback__ is None and error.__cause__ is not None:  # re-raised as another exception
        error = error.__cause__
    where = "nowhere"
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        where = f"{'/'.join(code.co_filename.rsplit('/', 3)[-3:])}:{line} in {code.co_name}"
    return type(error).__name__, where
