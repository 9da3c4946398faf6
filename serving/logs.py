"""Logging of our own processes, in the form that BentoML's have."""

import logging
import sys


def configure_logging() -> None:
    """Sends the `serving` loggers to standard error, one line a record."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s [%(levelname)s] [%(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    )
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
