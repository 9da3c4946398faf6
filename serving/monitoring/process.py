"""Processor time, memory, files and garbage collections of the workers, under the names that every Prometheus client has.

prometheus_client's own collectors know one process only: of several workers they would show the one that was asked.
"""

import gc
import resource
import time
from pathlib import Path

from prometheus_client import Counter, Gauge

from serving.monitoring.reserved import use_reserved_files

use_reserved_files()

INTERVAL_SECONDS = 1.0

# Without a registry: in a process that serves no metrics of several workers, prometheus_client's own have these names.
cpu_seconds_total = Counter(
    "process_cpu_seconds_total", "Processor time of all workers, user and system.", registry=None
)
resident_memory_bytes = Gauge(
    "process_resident_memory_bytes", "Memory of all workers.", multiprocess_mode="livesum", registry=None
)
open_fds = Gauge("process_open_fds", "Open files of all workers.", multiprocess_mode="livesum", registry=None)
max_fds = Gauge(
    "process_max_fds", "Limit of open files of a worker.", multiprocess_mode="livemin", registry=None
)
start_time_seconds = Gauge(
    "process_start_time_seconds",
    "Start of the oldest worker, in seconds since 1970.",
    multiprocess_mode="livemin",
    registry=None,
)
gc_collections_total = Counter(
    "python_gc_collections_total",
    "Garbage collections of all workers by generation.",
    ("generation",),
    registry=None,
)
gc_objects_collected_total = Counter(
    "python_gc_objects_collected_total",
    "Objects that they freed, by generation.",
    ("generation",),
    registry=None,
)


class ProcessMetrics:
    """The metrics of this worker."""

    def __init__(self) -> None:
        self._written = 0.0
        self._cpu_seconds = 0.0
        self._collected = [(0, 0)] * len(gc.get_stats())
        start_time_seconds.set(time.time())
        max_fds.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def flush(self) -> None:
        """Writes what has changed, at most once per `INTERVAL_SECONDS`."""
        now = time.monotonic()
        if now - self._written < INTERVAL_SECONDS:
            return
        self._written = now
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seconds = usage.ru_utime + usage.ru_stime
        cpu_seconds_total.inc(seconds - self._cpu_seconds)
        self._cpu_seconds = seconds
        if Path("/proc/self/statm").exists():
            pages = int(Path("/proc/self/statm").read_bytes().split()[1])
            resident_memory_bytes.set(pages * resource.getpagesize())
            open_fds.set(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        for generation, stats in enumerate(gc.get_stats()):
            before = self._collected[generation]
            gc_collections_total.labels(generation).inc(stats["collections"] - before[0])
            gc_objects_collected_total.labels(generation).inc(stats["collected"] - before[1])
            self._collected[generation] = stats["collections"], stats["collected"]
