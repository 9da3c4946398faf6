"""One attempt to get a version ready, in a process of its own.

MLflow, scikit-learn, pandas and whatever the model brings are in memory only while it runs, and what a model
does to its process it does to nobody else's.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from serving.prepare.resolving import Resolved, Wanted
from serving.settings import Settings
from serving.state import write_aside

PARENT_VARIABLE = "ATTEMPT_PARENT_PID"
"""In the environment of an attempt: the process that started it."""

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


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an attempt: a tag in the model store, versions in the registry, or why there is none."""

    tag: str | None = None
    wanted: Wanted | None = None
    code: str = ""
    message: str = ""


class Wish(msgspec.Struct, frozen=True):
    """What an attempt is to get ready."""

    resolved: Resolved
    champion: str | None
    """The tag of the model that answers now, with which it is compared."""


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Tells the process that started the attempt."""
    write_aside(file, outcome)


def read_outcome(file: Path) -> Outcome | None:
    """Returns what came of the attempt; None where it did not get so far."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None


SUPERSEDED = "superseded"
"""Code of an attempt that was ended because the registry wants something else by now."""


def attempt(
    file: Path,
    wish: Wish | None,
    settings: Settings,
    stop: threading.Event,
    is_superseded: Callable[[], bool] | None = None,
) -> Outcome:
    """Runs one attempt; however that ends, an outcome comes back.

    Args:
        file: where the process writes its outcome.
        wish: the version to prepare; None asks MLflow's own client which it is, and prepares nothing.
        settings: of the service.
        stop: ends the attempt.
        is_superseded: asked all the time; ends it, too.
    """
    file.unlink(missing_ok=True)
    arguments = [] if wish is None else [msgspec.json.encode(wish).decode()]
    try:
        process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-m", "serving.prepare", str(file), *arguments],
            stdin=subprocess.DEVNULL,
            env=os.environ | {PARENT_VARIABLE: str(os.getpid())},
        )
    except OSError as error:
        return Outcome(code="internal_error", message=f"no process can be started: {error.strerror}")
    give_up = time.monotonic() + settings.prepare_timeout_seconds
    while process.poll() is None:
        if is_superseded is not None and is_superseded():
            process.kill()
            process.wait()
            return Outcome(code=SUPERSEDED, message="the registry names another version by now")
        if stop.wait(0.05) or time.monotonic() > give_up:
            process.kill()
            process.wait()
            return Outcome(
                code="prepare_failed",
                message=f"preparing took longer than {settings.prepare_timeout_seconds:g} s "
                "(SERVING_PREPARE_TIMEOUT_SECONDS)",
            )
    return read_outcome(file) or _without_outcome(process.returncode)


def _without_outcome(status: int) -> Outcome:
    if -status in CRASHES:
        # The name is one of the system's; what the model printed is in the log.
        return Outcome(
            code="model_refused",
            message=f"it crashed the process that prepared it ({signal.Signals(-status).name})",
        )
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return Outcome(code="prepare_failed", message=f"the preparing process {how}; the log may say more")


def end_with_parent() -> None:
    """Ends this process with the one that started it: an attempt that nobody waits for holds the model's lock.

    Linux only. Source: PR_SET_PDEATHSIG(2const).
    """
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    # It may have ended before the kernel was told.
    if os.environ.get(PARENT_VARIABLE, str(os.getppid())) != str(os.getppid()):
        sys.exit("the process that started this one is gone")


def lower_priority() -> None:
    """Leaves the processor and the memory to the workers where both are short; the attempt can be repeated."""
    os.nice(10)
    try:
        # Of all processes the kernel ends this one first. Source: proc_pid_oom_score_adj(5).
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return
