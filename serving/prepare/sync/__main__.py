"""The sync process: rounds of asking the registry, until the parent is gone; see `serving.prepare.sync`."""

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
    """What the process sleeps on: a named pipe that others write to."""

    def __init__(self, run_directory: Path) -> None:
        # For writing, too: a pipe without a writer would be at its end, and never silent.
        self._pipe = os.open(make_wake_pipe(run_directory), os.O_RDWR | os.O_NONBLOCK)

    def wait(self, seconds: float) -> bool:
        """Returns False after so long, or True once somebody has written."""
        if select.select([self._pipe], [], [], seconds)[0]:
            os.read(self._pipe, 65_536)
            return True
        return False

    def ring(self) -> None:
        """Ends the wait; by the open pipe, whose name is gone once the parent has tidied up."""
        os.write(self._pipe, b"!")


def main(run_directory: Path) -> None:
    """Runs until the parent is gone."""
    settings = load_settings()
    configure_logging(settings.log_format)
    stop = threading.Event()
    try:
        alarm = Alarm(run_directory)
    except FileNotFoundError:  # the parent has ended already: its port was taken, for one
        return

    def wait_for_parent() -> None:
        # Not through sys.stdin, whose lock a thread would hold while the interpreter ends.
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
        except OSError as error:  # the run directory's disk is full, or no process can be made
            if not run_directory.exists():  # the parent has tidied up, and ends
                return
            log.error("the registry cannot be followed: %s (trying again)", error)  # noqa: TRY400  # no trace for it
        except Exception:
            log.exception("the registry cannot be followed (trying again)")
        if synchronizer.is_hurried:
            synchronizer.is_hurried = False
            continue
        # Jitter keeps many pods from asking the registry in step.
        if alarm.wait(settings.sync_seconds * random.uniform(0.8, 1.2)):  # noqa: S311  # no secret depends on it
            synchronizer.hurry()
            # However often somebody wakes it, the registry is not asked more than so often.
            stop.wait(max(began + MIN_ROUND_SECONDS - time.monotonic(), 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
