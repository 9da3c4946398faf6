"""Limits the memory of a worker's requests in flight: bodies, rows and answers, all together."""

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
"""Larger bodies are processed one at a time, smaller ones two: parsing JSON takes up to 40 times its size."""


class InFlight:
    """The bytes that all requests have claimed."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self.large_turn, self.medium_turns = asyncio.Lock(), asyncio.Semaphore(2)


class Claim:
    """The memory of one request.

    A request that is alone may take as much as the limits of a single request allow.
    """

    __slots__ = ("_all", "_is_kept", "n_bytes")

    def __init__(self, in_flight: InFlight) -> None:
        self._all = in_flight
        self.n_bytes = 0
        self._is_kept = False
        """Whether a thread still works on the request's data after the answer."""

    def check(self, n_bytes: int) -> None:
        """Rejects a further claim if other requests leave no room for it.

        Raises:
            QueueFull: there is too little memory.
        """
        others = self._all.n_bytes - self.n_bytes
        if others and self._all.n_bytes + n_bytes > self._all.limit_bytes:
            error = QueueFull(
                "requests in flight use up the memory limit (SERVING_REQUEST_MEMORY_MB); try again shortly"
            )
            # The rest of the body is not read; and a new connection may reach another worker.
            error.headers.append((b"connection", b"close"))
            raise error

    def add(self, n_bytes: int) -> None:
        """Claims more.

        Raises: as `check`.
        """
        self.check(n_bytes)
        self.n_bytes += n_bytes
        self._all.n_bytes += n_bytes

    def release(self) -> None:
        """Releases all of it, unless a thread still needs it."""
        if self._is_kept:
            return
        self._all.n_bytes -= self.n_bytes
        self.n_bytes = 0

    async def run_in_turn(self, n_bytes: int, function: Callable[..., T], *args: Any) -> T:
        """Calls a function in a thread; the next call waits until the caller can claim the result.

        Otherwise, while the event loop is busy, threads would produce results that nobody has claimed. If the caller gives
        up, the thread continues and keeps the turn and the claim.

        Args:
            n_bytes: size of its input.
            function: takes time and memory in proportion.
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
            work.exception()  # marks it as retrieved
        turn.release()
        self._is_kept = False
        self.release()
