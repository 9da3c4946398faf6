"""One attempt to get a version ready, in a process of its own.

MLflow, scikit-learn, pandas and whatever the model brings are in memory only while it runs, and what a model
does to its process it does to nobody else's.
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
"""Signals that end a process for what it did itself; it would do it again."""


SUPERSEDED = "superseded"
"""Code of an attempt that was ended because the registry wants something else by now."""


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
    """Runs one attempt; however that ends, an outcome comes back.

    Args:
        file: where the process writes its outcome.
        request: the version to prepare; None asks MLflow's own client which it is, and prepares nothing.
        settings: of the service.
        stop: ends the attempt.
        is_superseded: asked all the time; ends it, too.
        environment: more variables of the process.
        log: what it prints, if that is not to be seen where this process prints.
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
        return Outcome(code="internal_error", message=f"no process can be started: {error.strerror}")
    give_up = time.monotonic() + settings.prepare_timeout_seconds
    try:
        while process.poll() is None:
            if is_superseded is not None and is_superseded():
                return Outcome(code=SUPERSEDED, message="the registry names another version by now")
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
        # The name is one of the system's; what the model printed is in the log.
        return Outcome(
            code="model_refused",
            message=f"it crashed the process that prepared it ({signal.Signals(-status).name}); load it and predict "
            "its example where it was trained, with the library versions of this service",
        )
    if status == -signal.SIGKILL:
        return Outcome(
            code="prepare_failed",
            message="the preparing process was killed, as the system does where memory is short; give it more, or set "
            "SERVING_PREPARE_MEMORY_MB, so that the log says what takes it",
        )
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return Outcome(code="prepare_failed", message=f"the preparing process {how}; the log may say more")
