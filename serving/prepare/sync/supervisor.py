"""Keeps one sync process running beside the workers."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

log = logging.getLogger("serving.sync")


def start_sync(run_directory: Path) -> threading.Thread:
    """Starts the sync process, and restarts it if it is killed; it ends with this process.

    Returns:
        The daemon thread that supervises it.
    """

    def watch() -> None:
        while True:
            try:
                process = subprocess.Popen(  # noqa: S603  # our own module
                    [sys.executable, "-m", "serving.prepare.sync", str(run_directory)],
                    stdin=subprocess.PIPE,
                    env=os.environ
                    | {
                        "PYTHONPATH": _python_path(),
                        # Its metrics are shown by the workers.
                        "PROMETHEUS_MULTIPROC_DIR": str(run_directory / "metrics"),
                    },
                    # Ctrl-C goes to the whole foreground group; only its parent's exit may end this process.
                    start_new_session=True,
                )
                # The exit status is ignored: BentoML's process manager reaps all children of the parent.
                process.wait()
            except OSError as error:  # no more processes, for the moment
                log.error("cannot start the sync process: %s (retrying)", error)  # noqa: TRY400  # no traceback needed
            threading.Event().wait(1)

    thread = threading.Thread(target=watch, name="sync", daemon=True)
    thread.start()
    return thread


def _python_path() -> str:
    """Puts the folder of `serving` first; the working folder stays the user's, for relative registry paths."""
    root = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
