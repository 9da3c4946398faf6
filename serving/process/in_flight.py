"""What the requests of a worker take in memory while they are answered: bodies, rows and answers, all together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serving.errors import QueueFull

T = TypeVar("T")

_ONE_BY_ONE = ThreadPoolExecutor(1, thread_name_prefix="large")
_TWO_BY_TWO = ThreadPoolExecutor(2, thread_name_prefix="medium")

SMALL_BYTES = 64_000
"""A body or rows of no more than this are not claimed: as many requests as may wait take less than a model does."""


LARGE_BYTES = 1_000_000
"""Of these one at a time is worked at, of smaller ones two: JSON takes up to 40 times its size on the way."""


class InFlight:
    """The bytes that all requests have claimed."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self._turns = asyncio.Lock(), asyncio.Semaphore(2)

    async def call_aside(self, n_bytes: int, function: Callable[..., T], *args: Any) -> T:
        """Calls a function in a thread, whose result is claimed before the next one is made.

        A busy event loop would let threads make many that nobody has counted.

        Args:
            n_bytes: that it works at.
            function: takes the longer, and the more memory, the more there are.
            *args: of the function.
        """
        is_large = n_bytes > LARGE_BYTES
        # The threads are as few: one whose caller has given up goes on.
        pool = _ONE_BY_ONE if is_large else _TWO_BY_TWO
        async with self._turns[0 if is_large else 1]:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *args)


class Claim:
    """What one request takes.

    One that is alone may take whatever the limits of a request let it.
    """

    __slots__ = ("all", "n_bytes")

    def __init__(self, in_flight: InFlight) -> None:
        self.all = in_flight
        self.n_bytes = 0

    def check(self, n_bytes: int) -> None:
        """Refuses what is about to be taken if others have left no room for it.

        Raises:
            QueueFull: there is too little.
        """
        others = self.all.n_bytes - self.n_bytes
        if others and self.all.n_bytes + n_bytes > self.all.limit_bytes:
            error = QueueFull(
                "the requests that are being answered take the memory that there is for them "
                "(SERVING_REQUEST_MEMORY_MB); try again shortly"
            )
            # The rest of a body is not read; and another connection may lead to another worker.
            error.headers.append((b"connection", b"close"))
            raise error

    def add(self, n_bytes: int) -> None:
        """Takes more.

        Raises: as `check`.
        """
        self.check(n_bytes)
        self.n_bytes += n_bytes
        self.all.n_bytes += n_bytes

    def release(self) -> None:
        """Gives all of it back."""
        self.all.n_bytes -= self.n_bytes
        self.n_bytes = 0
