"""Frees memory promptly, without garbage collections that show in tail latency."""

import contextlib
import ctypes
import gc

THRESHOLDS = (50_000, 20, 100)
"""Allocations (less releases) between collections of the youngest generation, and how many of these per collection of
the next. Python's 700, 10, 10 scans all loaded objects every few thousand requests."""


LARGE_BLOCK_BYTES, KEPT_TOP_BYTES = 2**23, 2**24
"""Blocks of at least this size return to the system when freed; and how much of the smaller ones' memory is kept."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Source: mallopt(3), malloc.h."""


def settle(*, has_let_go: bool = False) -> None:
    """Exempts everything loaded so far from collections; called whenever a model has been loaded.

    Objects of requests are freed by reference counting; only cycles wait for a collection.

    Args:
        has_let_go: whether something settled earlier was released; scanning all of it takes some hundredths of a
            second.
    """
    if has_let_go:
        gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    give_back()


def give_back_blocks() -> None:
    """Makes the C library return large freed blocks to the system.

    By default it keeps freed blocks of up to 32 MB for reuse, and request bodies fragment the heap.

    Linux with glibc only.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_TOP_BYTES)


def give_back() -> None:
    """Returns freed memory that the C library keeps to the system: after loading, and large requests.

    Linux with glibc only; takes milliseconds.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def forget_frames(error: BaseException) -> None:
    """Releases the frames of an exception's traceback, and with them the body and rows of its request.

    An exception that was stored in a future, or in a local of one of the frames, is part of a reference cycle: the frames
    would stay until a collection.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link.__traceback__ = None  # an exception never raised has none, but its cause may
        link = link.__cause__ or link.__context__
