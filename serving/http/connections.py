"""Limits the number of a worker's connections and their timeouts."""

import asyncio
import logging
import resource
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

log = logging.getLogger("serving.connections")

TICK_SECONDS = 0.25
"""Interval of the check for timeouts: cheaper than a timer for each request."""

LOG_SECONDS = 60
"""Minimum interval between log lines about the limit: a flood of connections must not fill the disk."""

OPEN_FILES = Path("/proc/self/fd")
"""Source: proc_pid_fd(5)."""

SPARE_DESCRIPTORS = 96
"""File descriptors reserved for models, metrics, threads and the sandbox."""

IDLE_SECONDS = 1
"""A connection idle for less than this may have its next request under way."""


class Watched(Protocol):
    """What `Connections` needs from a connection."""

    @property
    def idle_since(self) -> float | None:
        """When it was opened or answered last, in seconds of the event loop; None while a request is under way."""

    def look(self, now: float) -> None:
        """Ends a request or connection that has timed out."""

    def close_idle(self) -> None:
        """Closes it to make room."""


class Connections:
    """Enforces the limits of a worker's connections."""

    def __init__(self, max_connections: int, header_seconds: float, body_seconds: float) -> None:
        self.header_seconds = header_seconds
        self.body_seconds = body_seconds
        self._max_connections = max_connections
        self._limit: int | None = None
        self._limited_by = "SERVING_MAX_CONNECTIONS"
        self._is_watching = False
        self._n_refused = 0
        self._n_closed = 0
        self._next_line = 0.0

    def admit(self, opened: Collection[Watched], loop: asyncio.AbstractEventLoop) -> bool:
        """Returns whether a new connection, which is already in `opened`, may stay.

        Above the limit, the connection that has been idle longest is closed.
        """
        if not self._is_watching:
            self._is_watching = True
            loop.call_later(TICK_SECONDS, self._watch, opened, loop)
        if self._limit is None:
            self._limit = self._find_limit()
        if len(opened) <= self._limit:
            return True
        now = loop.time()
        idle = [(one.idle_since, one) for one in opened if one.idle_since is not None]
        since, oldest = min(idle, key=lambda pair: pair[0], default=(now, None))
        if oldest is not None and now - since >= IDLE_SECONDS:
            self._n_closed += 1
            oldest.close_idle()
            return True
        self._n_refused += 1
        return False

    def _find_limit(self) -> int:
        """Returns the connection limit; raises the limit of file descriptors as needed."""
        used = len(list(OPEN_FILES.iterdir())) if OPEN_FILES.is_dir() else SPARE_DESCRIPTORS
        wanted = self._max_connections + used + SPARE_DESCRIPTORS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted and soft != resource.RLIM_INFINITY:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft >= wanted or soft == resource.RLIM_INFINITY:
            return self._max_connections
        limit = max(1, soft - used - SPARE_DESCRIPTORS)
        self._limited_by = "the limit of open files, ulimit -n"
        log.warning(
            "at most %d connections, not %d (SERVING_MAX_CONNECTIONS): the limit of open files (ulimit -n) is %d",
            limit,
            self._max_connections,
            soft,
        )
        return limit

    def _watch(self, opened: Collection[Watched], loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(opened):
            connection.look(now)
        if (self._n_refused or self._n_closed) and now >= self._next_line:
            self._next_line = now + LOG_SECONDS
            log.warning(
                "the limit of %d connections per worker is reached (%s): %d rejected, %d idle ones closed",
                self._limit,
                self._limited_by,
                self._n_refused,
                self._n_closed,
            )
            self._n_refused = self._n_closed = 0
        if opened or self._n_refused or self._n_closed:
            loop.call_later(TICK_SECONDS, self._watch, opened, loop)
        else:
            self._is_watching = False
