"""Heartbeats: each worker sends them, and the parent process kills workers that send none.

A worker that was stopped, or whose event loop is blocked, cannot help itself. BentoML's process manager replaces each
worker that has ended.
"""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

log = logging.getLogger("serving.heartbeat")

LOOK_SECONDS = 1.0
"""Interval between checks of the heartbeats."""

MAX_LOOK_SECONDS = 2.0
"""Maximum that one check counts: if the machine slept, or this process had no CPU either, no worker was silent."""


def beat(run_directory: Path) -> None:
    """Records a heartbeat of this process."""
    folder = run_directory / "beats"
    try:
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()
    except OSError:  # a full disk, for example: a worker without a heartbeat file is not watched
        return


class Silence:
    """Tracks how long each process has been silent."""

    def __init__(self) -> None:
        self._beats: dict[int, int] = {}
        self._seconds: dict[int, float] = {}

    def look(self, beats: dict[int, int], seconds: float) -> dict[int, float]:
        """Returns the seconds that each process has been silent.

        Args:
            beats: a value that changes with each heartbeat, by process.
            seconds: since the last check.
        """
        passed = min(seconds, MAX_LOOK_SECONDS)
        self._seconds = {
            pid: self._seconds[pid] + passed if self._beats.get(pid) == beaten else 0.0
            for pid, beaten in beats.items()
        }
        self._beats = beats
        return self._seconds


def watch_over_workers(run_directory: Path, silent_seconds: float) -> threading.Thread:
    """Kills workers, children of this process, that have been silent for longer than `silent_seconds`.

    Returns:
        The daemon thread that watches.
    """

    def watch() -> None:
        silence = Silence()
        before = time.monotonic()
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            for pid, seconds in silence.look(_read_beats(run_directory), now - before).items():
                if seconds > silent_seconds:
                    _end(run_directory, pid, seconds)
            before = now

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    return thread


def _read_beats(run_directory: Path) -> dict[int, int]:
    beats = {}
    for file in (run_directory / "beats").glob("[0-9]*"):
        try:
            beats[int(file.name)] = file.stat().st_mtime_ns
        except (OSError, ValueError):  # deleted meanwhile
            continue
    return beats


def _end(run_directory: Path, pid: int, seconds: float) -> None:
    """Kills a worker unless it has ended; its PID may belong to another process by now."""
    try:
        process = psutil.Process(pid)
        if process.ppid() == os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            log.error("worker %d has sent no heartbeat for %.0f s; it is killed and replaced", pid, seconds)
            process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        pass
    (run_directory / "beats" / str(pid)).unlink(missing_ok=True)
