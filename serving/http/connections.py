"""All open connections of a worker: how many there may be, and how long each may take."""

import asyncio
import logging
import resource
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

log = logging.getLogger("serving.connections")

TICK_SECONDS = 0.25
"""How often is looked for connections whose time is up: cheaper than a timer for each request."""

LOG_SECONDS = 60
"""At most one line in so many seconds says that the limit is reached: who fills it must not fill the disk, too."""

OPEN_FILES = Path("/proc/self/fd")
"""Source: proc_pid_fd(5)."""

SPARE_DESCRIPTORS = 96
"""File descriptors that are left to everything but connections: models, metrics, threads, the sandbox."""

IDLE_SECONDS = 1
"""A connection that was opened or answered less long ago may have its next request under way."""


class Watched(Protocol):
    """A connection, as far as all of them are concerned."""

    @property
    def idle_since(self) -> float | None:
        """When it was opened or answered last, in seconds of the event loop; None while a request is under way."""

    def look(self, now: float) -> None:
        """Ends what has taken too long."""

    def close_idle(self) -> None:
        """Closes it, since there are too many."""


class Connections:
    """The limits of a worker's connections, and who keeps to them."""

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
        """Returns whether one more connection may stay, which is among those that are open already.

        Where there are too many, the one that has been idle longest makes room.
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
        """Returns how many connections there may be, having asked for as many file descriptors as that takes."""
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
            "file descriptors are enough for %d connections, not for %d (SERVING_MAX_CONNECTIONS): the limit of open "
            "files (ulimit -n) is %d",
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
                "%d connections are open in this worker, as many as may be (%s): %d more were refused, %d idle ones "
                "closed",
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
