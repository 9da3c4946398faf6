"""How many processors this process may use: fewer than the machine has, in a container."""

import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""`QUOTA PERIOD` in microseconds, or `max PERIOD`. Source: the kernel's documentation of cgroup v2, CPU."""


def count_cpus(cpu_max: Path = CPU_MAX) -> int:
    """Returns the number of processors, at least 1: by affinity, and by the limit of the control group."""
    n_allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        limit = n_allowed if quota == "max" else int(quota) // int(period)
    except (OSError, ValueError, ZeroDivisionError):
        limit = n_allowed
    return max(1, min(n_allowed, limit))
