"""A clock that stops while the thread waits for a processor."""

import time
from pathlib import Path

SCHEDULE = Path("/proc/thread-self/schedstat")
"""Nanoseconds that this thread ran, and waited for a processor. Source: the kernel's documentation of sched-stats."""


def unhindered_seconds() -> float:
    """Returns seconds from an arbitrary origin: sleeping counts, waiting for a processor does not.

    Preparing has a low priority: beside busy workers, its calls take many times longer than theirs.
    """
    try:
        waited = int(SCHEDULE.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        waited = 0
    return time.perf_counter() - waited / 1e9
