"""The sync process: polls the registry until the parent exits; see `serving.prepare.sync`."""

import logging
import os
import random
import select
import sys
import threading
import time
from pathlib import Path

from serving.model.state import make_wake_pipe
from serving.prepare.sync.synchronizer import Synchronizer
from serving.process.logs import configure_logging
from serving.settings import load_settings

log = logging.getLogger("serving.sync")

MIN_ROUND_SECONDS = 0.5


class Alarm:
    """Wakes the process: a named pipe that others write to."""

    def __init__(self, run_directory: Path) -> None:
        # Also open for writing: without a writer the pipe would always be ready, at end of file.
        self._pipe = os.open(make_wake_pipe(run_directory), os.O_RDWR | os.O_NONBLOCK)

    def wait(self, seconds: float) -> bool:
        """Returns False after the timeout, or True as soon as somebody writes."""
        if select.select([self._pipe], [], [], seconds)[0]:
            os.read(self._pipe, 65_536)
            return True
        return False

    def ring(self) -> None:
        """Ends the wait; uses the open pipe, since the parent deletes its name on exit."""
        os.write(self._pipe, b"!")


def main(run_directory: Path) -> None:
    """Runs until the parent exits."""
    settings = load_settings()
    configure_logging(settings.log_format)
    stop = threading.Event()
    try:
        alarm = Alarm(run_directory)
    except FileNotFoundError:  # the parent has exited already, for example because its port was taken
        return

    def wait_for_parent() -> None:
        # Not sys.stdin: the thread would hold its lock at interpreter exit.
        while os.read(0, 1024):
            pass
        stop.set()
        alarm.ring()

    threading.Thread(target=wait_for_parent, daemon=True).start()
    synchronizer = Synchronizer(run_directory, settings, stop)
    while not stop.is_set():
        began = time.monotonic()
        try:
            synchronizer.round()
        except OSError as error:  # the run directory's disk is full, or no process can be started
            if not run_directory.exists():  # the parent has cleaned up, and exits
                return
            log.error("syncing with the registry failed: %s (retrying)", error)  # noqa: TRY400  # no traceback needed
        except Exception:
            log.exception("syncing with the registry failed (retrying)")
        if synchronizer.is_hurried:
            synchronizer.is_hurried = False
            continue
        # Jitter keeps pods from polling the registry in step.
        if alarm.wait(settings.sync_seconds * random.uniform(0.8, 1.2)):  # noqa: S311  # no secret depends on it
            synchronizer.hurry()
            # Limits the polling rate, however often somebody wakes the process.
            stop.wait(max(began + MIN_ROUND_SECONDS - time.monotonic(), 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
