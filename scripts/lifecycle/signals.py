"""SIGINT, SIGTERM and SIGHUP interrupt a promotion, but not its rollback."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """One of the signals has arrived."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.exit_code = 128 + number
        """As a shell shows it: 130 after Ctrl-C, 143 after SIGTERM."""


@contextmanager
def breaking_off() -> Iterator[None]:
    """In the block, the first signal raises `Interrupted`; later ones are ignored, so that a rollback completes.

    They are ignored until the process ends, so that it ends with the exit code of the first one.
    """
    is_broken_off = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal is_broken_off
        is_broken_off = True
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    # Signals that the parent process ignores stay ignored.
    ours = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    finally:
        for number, handler in () if is_broken_off else before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """In the block, the signals are ignored."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
