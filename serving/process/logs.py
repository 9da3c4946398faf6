"""Logging of our own processes: in the form that BentoML's have, or all of it as JSON."""

import datetime as dt
import logging
import sys
from typing import Any, Literal

import msgspec

Format = Literal["text", "json"]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(form: Format = "text") -> None:
    """Sends the `serving` loggers to standard error as text, or to standard output as JSON, one line a record."""
    handler = logging.StreamHandler(sys.stdout if form == "json" else sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if form == "json"
        else logging.Formatter("%(asctime)s [%(levelname)s] [%(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    )
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def configure_bentoml(config: dict[str, Any]) -> None:
    """Lets BentoML's own records be JSON, too: those of handlers that it has, and of those that it makes later.

    Args:
        config: BentoML's `SERVER_LOGGING_CONFIG`, which each of its processes applies.
    """
    config["formatters"] = {name: {"()": JsonFormatter} for name in config["formatters"]}
    for name in (None, *config["loggers"]):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(JsonFormatter())
