"""Servers as processes: starts and observes them, and stops them with all their children."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.failures import BenchmarkFailure, EndedEarly
from benchmarks.results import Memory

READY_SECONDS = 120
STOP_SECONDS = 10
POLL_SECONDS = 0.02
SHOWN_LOG_LINES = 12
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

FOREIGN = ("SERVING_", "MLFLOW_", "BENTOML_", "MLSERVER_", "PROMETHEUS_", "OTEL_", "PYTHON")
"""The caller's variables that would affect the measurement."""


class Launch(NamedTuple):
    """How to start a server."""

    command: list[str]
    environment: dict[str, str]
    folder: Path
    """Its working folder; the log is written there."""
    ready_path: str
    """Returns 200 only once the model is ready."""


class Process(NamedTuple):
    """A line of `/proc`."""

    pid: int
    parent: int
    leader: int
    cpu_seconds: float
    resident_bytes: int


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
        self.port = port
        self.start_seconds = 0.0
        self._process = process
        self._log_file = log_file
        self._said = ""

    def wait_ready(self, path: str, started: float) -> None:
        """Waits for status 200, and records how long it took.

        Raises:
            EndedEarly: the server exited.
            BenchmarkFailure: it took longer than `READY_SECONDS`; has its last answer.
        """
        while time.perf_counter() - started < READY_SECONDS:
            if self._process.poll() is not None:
                failure = self.failure(f"it exited with code {self._process.returncode} before it was ready")
                raise EndedEarly(failure.reason, failure.log)
            if self._answers(path):
                self.start_seconds = time.perf_counter() - started
                return
            time.sleep(POLL_SECONDS)
        said = f"; last answer: {self._said}" if self._said else ""
        raise self.failure(f"it was not ready within {READY_SECONDS} s{said}")

    def _answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            self._said = f"{response.status} {response.read(300).decode(errors='replace')}"
            return response.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def failure(self, reason: str) -> BenchmarkFailure:
        """Returns a failure with the log's last lines."""
        lines = self._log_file.read_text(errors="replace").strip().splitlines()
        return BenchmarkFailure(reason, "\n".join(line[:300] for line in lines[-SHOWN_LOG_LINES:]))

    def processes(self) -> list[Process]:
        """Returns the processes of the server: its descendants, and all processes of its session."""
        return process_tree(self._process.pid)

    def cpu_seconds(self, module: str | None = None) -> float:
        """Returns the user and system time so far of all processes, or of those that run a module (`python -m`)."""
        found = self.processes()
        return sum(one.cpu_seconds for one in found if module is None or _module(one.pid) == module)

    def memory(self) -> Memory:
        """Returns the current resident memory of the processes."""
        sizes = sorted((round(p.resident_bytes / 1e6, 1) for p in self.processes()), reverse=True)
        return Memory(round(sum(sizes), 1), max(sizes, default=0.0), sizes)

    def private_mb(self) -> dict[str, float]:
        """Returns the current private memory, in MB of 10^6 bytes, by the module that a process runs (`python -m`)."""
        found: dict[str, float] = {}
        for process in self.processes():
            with contextlib.suppress(OSError):  # it exited meanwhile
                module = _module(process.pid)
                found[module] = round(found.get(module, 0) + _private_bytes(process.pid) / 1e6, 1)
        return found

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Suspends all processes of the server meanwhile: what they still have to do takes no time from another server."""
        pids = [process.pid for process in self.processes()]
        self._signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(pids, signal.SIGCONT)

    def _signal(self, pids: list[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Stops the server, and kills what is left after `STOP_SECONDS`."""
        # Listed first, because an orphaned child cannot be found afterwards.
        pids = {process.pid for process in self.processes()}
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pids |= {process.pid for process in self.processes()}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            for pid in pids - {self._process.pid}:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def running(launch: Launch, port: int) -> Iterator[Server]:
    """Starts a server, waits until it is ready, and always stops it at the end.

    Raises:
        BenchmarkFailure: it does not become ready.
    """
    launch.folder.mkdir(parents=True, exist_ok=True)
    log_file = launch.folder / "server.log"
    started = time.perf_counter()
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # commands of our own
            launch.command,
            cwd=launch.folder,
            env=clean_environment() | launch.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, log_file)
    try:
        server.wait_ready(launch.ready_path, started)
        yield server
    finally:
        server.stop()


class OtherProcesses:
    """What processes other than a server and this one, with its children, take of the processors."""

    def __init__(self, server: Server) -> None:
        """Starts to count."""
        self._server = server
        self._began = time.perf_counter()
        self._before = self._seconds()

    def _seconds(self) -> float:
        # Source: proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
        ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        busy = (sum(ticks) - ticks[3] - ticks[4]) / TICKS_PER_SECOND
        return busy - self._server.cpu_seconds() - sum(os.times()[:4])

    def share(self) -> float:
        """Returns the processors that they have used on average since the start."""
        return max(0.0, self._seconds() - self._before) / (time.perf_counter() - self._began)


def clean_environment() -> dict[str, str]:
    """Returns this process' environment without `FOREIGN` variables, with usage reports off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    """Returns a free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process_tree(root: int) -> list[Process]:
    """Returns the process, its descendants, and all processes of its session (setsid(2))."""
    everything = {process.pid: process for process in _all_processes()}
    found = {pid for pid, process in everything.items() if root in (pid, process.leader)}
    while True:
        children = {p.pid for p in everything.values() if p.parent in found} - found
        if not children:
            return [everything[pid] for pid in found]
        found |= children


def _all_processes() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it exited meanwhile
                yield _read_process(int(folder.name), (folder / "stat").read_text())


def _read_process(pid: int, stat: str) -> Process:
    """Source: proc(5). The second field, in brackets, may contain anything; those after it are numbers."""
    fields = stat.rpartition(")")[2].split()
    # Its own, and that of children which have ended.
    cpu_seconds = sum(map(int, fields[11:15])) / TICKS_PER_SECOND
    return Process(pid, int(fields[1]), int(fields[3]), cpu_seconds, int(fields[21]) * PAGE_BYTES)


def _module(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:  # it exited meanwhile
        return ""
    return words[words.index("-m") + 1] if "-m" in words else ""


def _private_bytes(pid: int) -> int:
    """Source: proc_pid_smaps(5): pages that no other process maps."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
