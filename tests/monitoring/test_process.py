"""`serving.monitoring.process`: numbers that the kernel and Python have, too."""

import gc
import os
import resource
import time

import psutil
import pytest

from serving.monitoring import process
from serving.monitoring.process import ProcessMetrics


def value(metric: object) -> float:
    return metric._value.get()  # type: ignore[attr-defined]


def test_processor_memory_and_files_are_what_psutil_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "INTERVAL_SECONDS", 0)
    counted = ProcessMetrics()
    before = value(process.cpu_seconds_total)
    counted.flush()
    me = psutil.Process()
    assert value(process.resident_memory_bytes) == pytest.approx(me.memory_info().rss, rel=0.05)
    assert value(process.open_fds) == pytest.approx(me.num_fds(), abs=2)
    assert value(process.max_fds) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert value(process.start_time_seconds) == pytest.approx(time.time(), abs=5)
    assert value(process.cpu_seconds_total) - before == pytest.approx(sum(os.times()[:2]), abs=1)
    between = value(process.cpu_seconds_total)
    counted.flush()
    assert value(process.cpu_seconds_total) - between < 1


def test_collections_are_counted_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "INTERVAL_SECONDS", 0)
    counted = ProcessMetrics()
    counted.flush()
    before = value(process.gc_collections_total.labels(2))
    gc.collect()
    counted.flush()
    counted.flush()
    assert value(process.gc_collections_total.labels(2)) - before == 1
