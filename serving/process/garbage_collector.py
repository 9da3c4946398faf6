"""Memory: what is not needed any more must not stay, and looking for it must not show in the slowest answers."""

import contextlib
import ctypes
import gc

THRESHOLDS = (50_000, 20, 100)
"""Allocations (less releases) between collections of the youngest generation, and how many of those between
two of the next. Python's 700, 10, 10 looks through everything that is loaded every few thousand requests."""


LARGE_BLOCK_BYTES, KEPT_TOP_BYTES = 2**23, 2**24
"""A block from this size on goes back to the system once it is free; and how much of the others' memory is kept."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Source: mallopt(3), malloc.h."""


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


def give_back_blocks() -> None:
    """Has the C library give every large block back to the system once it is free.

    By default it keeps freed blocks of up to 32 MB for the next one, and bodies that come and go fragment the heap.

    Linux with glibc only.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_TOP_BYTES)


def give_back() -> None:
    """Gives memory back to the system that the C library keeps in holes: after loading, and large requests.

    Linux with glibc only; takes milliseconds.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def forget_frames(error: BaseException) -> None:
    """Lets go of the frames that an exception has passed, and with them of the body and the rows of its request.

    An exception that waited in a future, or that one of the frames has a name for, is part of a cycle through them: they
    would stay until a collection.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link.__traceback__ = None  # one that was never raised has none, and what caused it may
        link = link.__cause__ or link.__context__
