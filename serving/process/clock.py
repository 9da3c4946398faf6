"""A clock that stands still while others have the processor."""

import time
from pathlib import Path

SCHEDULE = Path("/proc/thread-self/schedstat")
"""Nanoseconds that this thread ran, and that it waited for a processor. Source: the kernel's documentation of
sched-stats."""


def unhindered_seconds() -> float:
    """Returns seconds that only differences of mean something: sleeping counts, waiting for a processor does not.

    Preparing has a low priority: beside busy workers a call takes many times as long as it would for them.
    """
    try:
        waited = int(SCHEDULE.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        waited = 0
    return time.perf_counter() - waited / 1e9
