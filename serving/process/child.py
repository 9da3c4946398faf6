"""What a process that another one starts does first: it ends with it, and leaves it the processor."""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PARENT_VARIABLE = "ATTEMPT_PARENT_PID"
"""In the environment of an attempt: the process that started it."""


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
