"""How much memory is left: less than the machine has, in a container."""

import resource
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Of the container's own control group. Source: the kernel's documentation of cgroup v2, Memory."""

KEPT_FREE = 0.1
"""The part of what is left that a limited process leaves to the others."""


def available_bytes(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Returns the bytes that may still be used; None where the system does not say."""
    found = [bytes_ for bytes_ in (_left_in_group(cgroup), _left_on_machine(meminfo)) if bytes_ is not None]
    return min(found, default=None)


def _left_in_group(cgroup: Path) -> int | None:
    try:
        limit, used = (cgroup / "memory.max").read_text().strip(), (cgroup / "memory.current").read_text()
        # Pages of files are given back when they are needed.
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return None if limit == "max" else int(limit) - int(used) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def _left_on_machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError):
        return None
    return None


def limit_memory(megabytes: float | None) -> None:
    """Makes this process fail with MemoryError before the machine, or the container, has none left.

    Where a container's memory is used up the kernel ends one of its processes, and with some settings all.

    Args:
        megabytes: the limit in 10^6 bytes; None takes most of what is left.
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
