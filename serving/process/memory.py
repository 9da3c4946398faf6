"""Available memory: in a container, less than the machine has."""

import contextlib
import resource
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Of the container's own control group."""

_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Limit, usage, statistics, and the field in these of reclaimable memory: the page cache. Source: the kernel's
documentation of cgroup v2, Memory, and of cgroup v1, Memory Resource Controller."""

KEPT_FREE = 0.1
"""Fraction of the available memory that a limited process leaves to others."""


def total_bytes(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Returns the total memory in bytes; None if the system does not report it."""
    found = [_read_meminfo(meminfo, "MemTotal")]
    for limit, *_ in _FILES:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            found.append(int((cgroup / limit).read_text()))
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=None)


def available_bytes(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Returns the available memory in bytes; None if the system does not report it."""
    found = (_left_in_group(cgroup), _read_meminfo(meminfo, "MemAvailable"))
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=None)


def _left_in_group(cgroup: Path) -> int | None:
    for limit, used, statistics, given_back in _FILES:
        with contextlib.suppress(OSError, ValueError):
            left = int((cgroup / limit).read_text()) - int((cgroup / used).read_text())
            stat = dict(line.split() for line in (cgroup / statistics).read_text().splitlines())
            return left + int(stat.get(given_back, 0))
    return None


def _read_meminfo(meminfo: Path, wanted: str) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == wanted:
                return int(value.split()[0]) * 1024
    except (OSError, ValueError):
        return None
    return None


REQUESTS_PART, REQUESTS_BYTES = 0.2, 1_000_000_000
"""Default memory limit of requests: this fraction of all memory, and at most this many bytes.

In the worst case a worker uses it three times: for its requests, for the next one while it is read, and for what the
parser makes of one of its rows and of two small bodies. In a container of 1 GiB the rest is left for the model."""


def requests_bytes(n_workers: int) -> int:
    """Returns the default memory limit of requests, per worker."""
    total = total_bytes()
    return REQUESTS_BYTES if total is None else min(REQUESTS_BYTES, int(total * REQUESTS_PART / n_workers))


def limit_memory(megabytes: float | None) -> None:
    """Makes this process raise MemoryError before the machine, or the container, runs out of memory.

    If a container runs out of memory, the kernel kills one of its processes, or with some settings all.

    Args:
        megabytes: the limit in 10^6 bytes; None for most of the available memory.
    """
    left = available_bytes()
    if megabytes is not None:
        limit = int(megabytes * 1e6)
    elif left is not None:
        limit = int(left * (1 - KEPT_FREE))
    else:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
