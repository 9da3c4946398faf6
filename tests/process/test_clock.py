"""`serving.process.clock`: sleeping counts, waiting for a processor does not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.process import clock
from serving.process.clock import unhindered_seconds
from tests.support.environment import ROOT


def test_sleeping_counts():
    started = unhindered_seconds()
    time.sleep(0.2)
    assert 0.15 < unhindered_seconds() - started < 5


@pytest.mark.skipif(not clock.SCHEDULE.exists(), reason="this kernel keeps no such statistics")
def test_waiting_for_a_processor_does_not():
    """On one processor with four busy processes, work takes five times as long by any other clock."""
    cpu = str(min(os.sched_getaffinity(0)))
    busy = [
        subprocess.Popen(["taskset", "-c", cpu, sys.executable, "-c", "while True: pass"]) for _ in range(4)
    ]
    code = (
        "import time\n"
        "from serving.process.clock import unhindered_seconds as clock\n"
        "begun, wall = clock(), time.perf_counter()\n"
        "end = time.thread_time() + 0.3\n"
        "while time.thread_time() < end: pass\n"
        "print(clock() - begun, time.perf_counter() - wall)\n"
    )
    try:
        done = subprocess.run(
            ["taskset", "-c", cpu, sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    unhindered, wall = map(float, done.stdout.split())
    assert wall > 0.6
    assert unhindered < wall / 2


def test_without_statistics_it_is_a_plain_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(clock, "SCHEDULE", tmp_path / "missing")
    before = time.perf_counter()
    assert before <= unhindered_seconds() <= time.perf_counter()
