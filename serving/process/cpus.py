"""Processors that this process may use: in a container, fewer than the machine has."""

import contextlib
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Of the container's own control group."""


def count_cpus(cgroup: Path = CGROUP) -> int:
    """Returns the number of processors, at least 1: by affinity, and by the limit of the control group."""
    n_allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [n_allowed]
    for read in (_read_v2, _read_v1):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = read(cgroup)
            limits.append(quota // period)
    return max(1, min(limits))


def _read_v2(cgroup: Path) -> tuple[int, int]:
    """`QUOTA PERIOD` in microseconds, or `max PERIOD`. Source: the kernel's documentation of cgroup v2, CPU."""
    quota, period = (cgroup / "cpu.max").read_text().split()
    return int(quota), int(period)


def _read_v1(cgroup: Path) -> tuple[int, int]:
    """Microseconds, -1 for no limit. Source: the kernel's documentation, CFS Bandwidth Control."""
    quota, period = (int((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    if quota < 0:
        raise ValueError("no limit")
    return quota, period
