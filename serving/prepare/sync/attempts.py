"""One attempt to prepare a version, in a separate process.

MLflow, scikit-learn, pandas and the model's own imports are in memory only while it runs, and a model that crashes
its process harms no other.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

import msgspec

from serving.prepare.request import Outcome, PrepareRequest, read_outcome
from serving.process.child import PARENT_VARIABLE
from serving.settings import Settings

CRASHES = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGABRT,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
"""Signals caused by the process itself; a retry would fail the same way."""


SUPERSEDED = "superseded"
"""Code of an attempt that was ended because the registry now names another version."""


def attempt(
    file: Path,
    request: PrepareRequest | None,
    settings: Settings,
    stop: threading.Event,
    is_superseded: Callable[[], bool] | None = None,
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    log: IO[bytes] | None = None,
) -> Outcome:
    """Runs one attempt, and returns an outcome however it ends.

    Args:
        file: for the outcome.
        request: the version to prepare; None only looks it up with MLflow's own client.
        settings: of the service.
        stop: ends the attempt.
        is_superseded: called repeatedly; True ends the attempt.
        environment: additional variables of the process.
        log: for the output of the process; default: this process's.
    """
    file.unlink(missing_ok=True)
    arguments = [] if request is None else [msgspec.json.encode(request).decode()]
    try:
        process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-m", "serving.prepare", str(file), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | environment | {PARENT_VARIABLE: str(os.getpid())},
        )
    except OSError as error:
        return Outcome(code="internal_error", message=f"cannot start a process: {error.strerror}")
    give_up = time.monotonic() + settings.prepare_timeout_seconds
    try:
        while process.poll() is None:
            if is_superseded is not None and is_superseded():
                return Outcome(code=SUPERSEDED, message="the registry now names another version")
            if stop.wait(0.05) or time.monotonic() > give_up:
                return Outcome(
                    code="prepare_failed",
                    message=f"preparing took longer than {settings.prepare_timeout_seconds:g} s "
                    "(SERVING_PREPARE_TIMEOUT_SECONDS); give it more time or processors, or log a smaller model",
                )
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return read_outcome(file) or _without_outcome(process.returncode)


def _without_outcome(status: int) -> Outcome:
    if -status in CRASHES:
        # The model's own output is in the log.
        return Outcome(
            code="model_refused",
            message=f"it crashed the process that prepared it ({signal.Signals(-status).name}); load it and predict "
            "its example where it was trained, with the library versions of this service",
        )
    if status == -signal.SIGKILL:
        return Outcome(
            code="prepare_failed",
            message="the preparing process was killed, probably for lack of memory; give it more, or set "
            "SERVING_PREPARE_MEMORY_MB, so that the log says what needs it",
        )
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return Outcome(code="prepare_failed", message=f"the preparing process {how}; the log may say more")
