"""Keeps a process running beside the workers."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("serving.companion")


class Companion:
    """A process that is restarted if it is killed, and ends with this one: its standard input is closed then."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Starts it.

        Args:
            module: to run, one of ours.
            *arguments: of its command line.
            environment: its variables; default: those of this process.
        """
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = dict(os.environ if environment is None else environment)
        self._environment["PYTHONPATH"] = _python_path()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = threading.Event()
        self._has_ended = threading.Event()
        threading.Thread(target=self._supervise, name=module, daemon=True).start()

    def _supervise(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._process = process = subprocess.Popen(  # noqa: S603  # our own module
                    self._command,
                    stdin=subprocess.PIPE,
                    env=self._environment,
                    # Ctrl-C goes to the whole foreground group; only its parent's exit may end this process.
                    start_new_session=True,
                )
                # The exit status is ignored: BentoML's process manager reaps all children of the parent.
                process.wait()
            except OSError as error:  # no more processes, for the moment
                log.error("cannot start %s: %s (retrying)", self._command[2], error)  # noqa: TRY400  # no traceback needed
            self._is_closed.wait(1)
        self._has_ended.set()

    def close(self, seconds: float) -> None:
        """Asks the process to end, and waits until it has, at most some seconds."""
        self._is_closed.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._has_ended.wait(seconds)


def _python_path() -> str:
    """Puts the folder of `serving` first; the working folder stays the user's, for relative registry paths."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
