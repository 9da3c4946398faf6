"""A worker while it is sent what is damaged: does it live, answer, and keep to its memory?"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.processes import WORKER, child_processes, resident_mb
from tests.support.services import Service

STALL_SECONDS = 0.5
"""Of processor time that a worker may use while one `/livez` waits: a busy machine makes it wait longer, and is no stall."""


class Watched:
    """The worker of a service that has one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        (self._worker,) = child_processes(service.process.pid, WORKER)
        self._at_rest = self._peak = resident_mb(self._worker)
        self._longest = 0.0

    def watch(self, goes_on: Callable[[], bool]) -> None:
        """Asks it for `/livez` as long as something goes on."""
        while goes_on():
            before = used_seconds(self._worker)
            assert self._service.http.get("/livez").status_code == 200
            self._longest = max(self._longest, used_seconds(self._worker) - before)
            self._peak = max(self._peak, resident_mb(self._worker))
            time.sleep(0.02)

    def check(self, in_flight_mb: float) -> None:
        """It is the same process, was never busy for long, and did not take much."""
        assert child_processes(self._service.process.pid, WORKER) == [self._worker]
        assert self._longest <= STALL_SECONDS
        assert self._peak <= 2 * self._at_rest + in_flight_mb

    def __str__(self) -> str:
        return (
            f"{self._at_rest:.0f} MB at rest, {self._peak:.0f} at most; {self._longest:.2f} s of the worker within one "
            "/livez at most"
        )


def used_seconds(pid: int) -> float:
    """Processor time of a process. Source: proc_pid_stat(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
