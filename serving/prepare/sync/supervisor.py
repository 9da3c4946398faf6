"""Keeps one sync process running beside the workers."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

log = logging.getLogger("serving.sync")


def start_sync(run_directory: Path) -> threading.Thread:
    """Starts the sync process, and again if it is killed; it ends with this process.

    Returns:
        The thread that watches over it, a daemon.
    """

    def watch() -> None:
        while True:
            try:
                process = subprocess.Popen(  # noqa: S603  # our own module
                    [sys.executable, "-m", "serving.prepare.sync", str(run_directory)],
                    stdin=subprocess.PIPE,
                    env=os.environ | {"PYTHONPATH": _python_path()},
                    # Ctrl-C goes to the whole foreground group; this process is ended by its parent's end alone.
                    start_new_session=True,
                )
                # Not by the exit status: BentoML's process manager reaps every child of the parent itself.
                process.wait()
            except OSError as error:  # no more processes, for the moment
                log.error("no sync process can be started: %s (trying again)", error)  # noqa: TRY400  # no trace for it
            threading.Event().wait(1)

    thread = threading.Thread(target=watch, name="sync", daemon=True)
    thread.start()
    return thread


def _python_path() -> str:
    """Where `serving` is, first: the working folder stays the user's, relative registry paths are theirs."""
    root = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
