"""Memory: Python's garbage collector must not show in the slowest answers, nor loading in what is kept."""

import contextlib
import ctypes
import gc

THRESHOLDS = (50_000, 20, 100)
"""Allocations (less releases) between collections of the youngest generation, and how many of those between
two of the next. Python's 700, 10, 10 looks through everything that is loaded every few thousand requests."""


def settle(*, has_let_go: bool = False) -> None:
    """Takes what is loaded now out of the collector's sight; called whenever a model has been loaded.

    What requests leave behind is freed by its reference count; only cycles wait for a collection.

    Args:
        has_let_go: whether something that was settled before is needed no more; looking through all of it
            takes some hundredths of a second.
    """
    if has_let_go:
        gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    give_back()


def give_back() -> None:
    """Gives memory back to the system that the C library keeps in holes: after loading, and large requests.

    Linux with glibc only; takes milliseconds.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
