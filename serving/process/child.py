"""Setup of a child process: it ends with its parent, and yields the CPU to it."""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PARENT_VARIABLE = "ATTEMPT_PARENT_PID"
"""In the environment of an attempt: the process that started it."""


def end_with_parent() -> None:
    """Ends this process with its parent: an orphaned attempt would hold the model's lock.

    Linux only. Source: PR_SET_PDEATHSIG(2const).
    """
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    # The parent may have ended before prctl.
    if os.environ.get(PARENT_VARIABLE, str(os.getppid())) != str(os.getppid()):
        sys.exit("the parent process has ended")


def lower_priority() -> None:
    """Gives workers precedence for CPU and memory; the attempt can be repeated."""
    os.nice(10)
    try:
        # Out of memory, the kernel kills this process first. Source: proc_pid_oom_score_adj(5).
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        return
