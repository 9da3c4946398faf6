"""What the requests of a worker take in memory while they are answered: bodies, rows and answers, all together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from serving.errors import QueueFull

T = TypeVar("T")

_ONE_BY_ONE = ThreadPoolExecutor(1, thread_name_prefix="large")
_TWO_BY_TWO = ThreadPoolExecutor(2, thread_name_prefix="medium")

LARGE_BYTES = 1_000_000
"""Of these one at a time is worked at, of smaller ones two: JSON takes up to 40 times its size on the way."""


class InFlight:
    """The bytes that all requests have claimed."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self.large_turn, self.medium_turns = asyncio.Lock(), asyncio.Semaphore(2)


class Claim:
    """What one request takes.

    One that is alone may take whatever the limits of a request let it.
    """

    __slots__ = ("_all", "_is_kept", "n_bytes")

    def __init__(self, in_flight: InFlight) -> None:
        self._all = in_flight
        self.n_bytes = 0
        self._is_kept = False
        """Whether a thread still works at what the request has sent, though that is answered."""

    def check(self, n_bytes: int) -> None:
        """Refuses what is about to be taken if others have left no room for it.

        Raises:
            QueueFull: there is too little.
        """
        others = self._all.n_bytes - self.n_bytes
        if others and self._all.n_bytes + n_bytes > self._all.limit_bytes:
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
        self._all.n_bytes += n_bytes

    def release(self) -> None:
        """Gives all of it back, unless it is kept."""
        if self._is_kept:
            return
        self._all.n_bytes -= self.n_bytes
        self.n_bytes = 0

    async def run_in_turn(self, n_bytes: int, function: Callable[..., T], *args: Any) -> T:
        """Calls a function in a thread, whose result is claimed before the next one is made.

        A busy event loop would let threads make many that nobody has counted. A caller that gives up leaves its turn and
        its claim to the thread, which goes on.

        Args:
            n_bytes: that it works at.
            function: takes the longer, and the more memory, the more there are.
            *args: of the function.
        """
        pool, turn = (
            (_ONE_BY_ONE, self._all.large_turn)
            if n_bytes > LARGE_BYTES
            else (_TWO_BY_TWO, self._all.medium_turns)
        )
        await turn.acquire()
        work = asyncio.get_running_loop().run_in_executor(pool, function, *args)
        try:
            return await asyncio.shield(work)
        finally:
            if work.done():
                turn.release()
            else:
                self._is_kept = True
                work.add_done_callback(partial(self._end, turn))

    def _end(self, turn: asyncio.Lock | asyncio.Semaphore, work: "asyncio.Future[Any]") -> None:
        if not work.cancelled():
            work.exception()  # nobody waits for it
        turn.release()
        self._is_kept = False
        self.release()
