"""Time for tests of what waits: it passes only where somebody sleeps, and what is due happens meanwhile."""

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

WAKING_SECONDS = 0.0005
"""Nobody wakes up before the time is over, and without this rounding might let somebody."""

PACE_SECONDS = 0.02


class Clock:
    """Takes the place of the module `time` in scripts that look at the clock and sleep."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0
        self._due: list[tuple[float, int, Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def time(self) -> float:
        """Seconds since 1970."""
        return self._now

    def monotonic(self) -> float:
        """The same, as it cannot be set."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Lets time pass at once, and happen what is due in it, in this thread."""
        end = self._now + seconds + WAKING_SECONDS
        while act := self._next_until(end):
            act()
        self._now = max(self._now, end)

    def after(self, seconds: float, act: Callable[[], Any]) -> None:
        """Lets something happen once, so long from now."""
        with self._lock:
            heapq.heappush(self._due, (self._now + seconds, next(self._numbers), act))

    def every(self, seconds: float, act: Callable[[], Any]) -> None:
        """Lets something happen again and again, from now on."""

        def again() -> None:
            self.after(seconds, again)
            act()

        self.after(seconds, again)

    @contextlib.contextmanager
    def in_real_time(self) -> Iterator[None]:
        """Lets time pass as it does, for processes that have a clock of their own."""
        over = threading.Event()

        def follow() -> None:
            ahead = self._now - time.monotonic()
            while not over.wait(PACE_SECONDS):
                self.sleep(max(0.0, time.monotonic() + ahead - self._now))

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _next_until(self, end: float) -> Callable[[], Any] | None:
        with self._lock:
            if not self._due or self._due[0][0] > end:
                return None
            at, _, act = heapq.heappop(self._due)
        self._now = max(self._now, at)
        return act
