"""Signs of life: each worker gives them, and the process that started the workers ends those that give none.

A worker that was stopped, or whose event loop hangs in a call that lets nothing else run, can do nothing about it
itself. BentoML's process manager starts another one for each that has ended.
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
"""Between two looks at the signs of life."""

MAX_LOOK_SECONDS = 2.0
"""What a look counts at most: where the machine was asleep, or this process had no processor either, nobody is silent."""


def beat(run_directory: Path) -> None:
    """Gives a sign of life of this process."""
    folder = run_directory / "beats"
    try:
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()
    except OSError:  # a full disk, for one: who gave none is not watched over
        return


class Silence:
    """For how long each process has been silent."""

    def __init__(self) -> None:
        self._beats: dict[int, int] = {}
        self._seconds: dict[int, float] = {}

    def look(self, beats: dict[int, int], seconds: float) -> dict[int, float]:
        """Returns the seconds that each process has been silent.

        Args:
            beats: something that differs after each sign of life, by process.
            seconds: since the last look.
        """
        passed = min(seconds, MAX_LOOK_SECONDS)
        self._seconds = {
            pid: self._seconds[pid] + passed if self._beats.get(pid) == beaten else 0.0
            for pid, beaten in beats.items()
        }
        self._beats = beats
        return self._seconds


def watch_over_workers(run_directory: Path, silent_seconds: float) -> threading.Thread:
    """Kills the workers, which are children of this process, that have been silent for so long.

    Returns:
        The thread that watches, a daemon.
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
        except (OSError, ValueError):  # it is gone meanwhile
            continue
    return beats


def _end(run_directory: Path, pid: int, seconds: float) -> None:
    """Kills a worker, unless it has ended; its number may be another process' by now."""
    try:
        process = psutil.Process(pid)
        if process.ppid() == os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            log.error(
                "worker %d has given no sign of life for %.0f s; it is killed and replaced", pid, seconds
            )
            process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        pass
    (run_directory / "beats" / str(pid)).unlink(missing_ok=True)
