"""The adaptive batcher: decides, from what a call costs, whether requests share one, and lets them.

A compiled model answers a row in less time than a request takes to be read: its calls are made at once, on
the event loop, and only large ones go to the model's thread. Where one call costs much whatever it is asked
(scikit-learn on a DataFrame), all go to the thread, and those that have gathered while it worked share the
next call. Nothing ever waits for a timer.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import msgspec
import numpy as np

from serving.errors import ClientGone, QueueFull
from serving.monitoring import metrics
from serving.runtime import Output, count_output, slice_output
from serving.schema import Inputs, join, take

log = logging.getLogger("serving.batching")

Call = Callable[[Inputs, dict[str, Any]], Output]
Gone = Callable[[], Awaitable[Any]]
"""Returns when the client has hung up."""

MEASURED_ROWS = (1, 8, 64, 512)

MEASURE_SECONDS = 0.25
"""A call that takes longer than this is measured once, and no larger one is."""

INLINE_SECONDS = 0.0005
"""A call may hold the event loop for so long: a few times what reading and answering a request costs."""

LARGE_RATIO = 8
"""A request with more than this part of a batch's rows is large: it runs alone, between two batches."""


class Costs(msgspec.Struct, frozen=True):
    """Seconds that calls took, by their number of rows; ascending."""

    seconds: dict[int, float]

    def estimate(self, n_rows: int) -> float:
        """Returns the seconds that a call of `n_rows` will take, between and beyond the measured ones."""
        rows = list(self.seconds)
        if n_rows >= rows[-1]:
            return self.seconds[rows[-1]] * n_rows / rows[-1]
        return float(np.interp(n_rows, rows, list(self.seconds.values())))


def measure_costs(call: Call, inputs: Inputs, params: dict[str, Any]) -> Costs:
    """Measures what calls cost, with the rows of `inputs` over and over.

    Raises:
        Exception: whatever the model raises.
    """
    seconds: dict[int, float] = {}
    for n_rows in MEASURED_ROWS:
        rows = take(join([inputs] * -(-n_rows // inputs.n_rows)), 0, n_rows)
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            call(rows, params)
            best = min(best, time.perf_counter() - started)
            if best > MEASURE_SECONDS:
                break
        seconds[n_rows] = best
        if best > MEASURE_SECONDS:
            break
    return Costs(seconds)


class Policy(msgspec.Struct, frozen=True):
    """How the calls of one model are made."""

    batches: bool
    """Whether requests may share a call."""
    inline_rows: int
    """Requests of up to this many rows are answered on the event loop, at once; 0 is none."""
    max_batch_rows: int
    max_queued_requests: int
    gather_seconds: float
    """What the call for one row costs: for so long at most more requests are taken in before a call."""


def choose_policy(
    mode: Literal["auto", "on", "off"],
    costs: Costs,
    *,
    is_compiled: bool,
    is_rowwise: bool,
    max_batch_rows: int,
    max_queued_requests: int,
) -> Policy:
    """Returns the policy for a model of these costs.

    Args:
        mode: `on` batches whatever the costs, `off` never, `auto` where it pays.
        costs: as measured.
        is_compiled: only a compiled model is called on the event loop: what another one does with the next
            rows nobody knows.
        is_rowwise: whether a row's answer is independent of the rows beside it; where it is not, only
            `on` batches.
        max_batch_rows: rows of one shared call.
        max_queued_requests: requests that may wait.
    """
    inline_rows = 0
    if is_compiled and mode != "on":
        # The largest power of two that stays below the limit.
        while costs.estimate(max(2 * inline_rows, 1)) <= INLINE_SECONDS and inline_rows < max_batch_rows:
            inline_rows = max(2 * inline_rows, 1)
    batches = mode == "on" or (mode == "auto" and inline_rows == 0 and is_rowwise)
    return Policy(batches, inline_rows, max_batch_rows, max_queued_requests, costs.estimate(1))


class _Entry:
    """A request that waits for its call."""

    __slots__ = ("future", "inputs", "key", "params", "since")

    def __init__(self, inputs: Inputs, params: dict[str, Any], future: "asyncio.Future[Output]") -> None:
        self.inputs, self.params, self.future = inputs, params, future
        # Only requests with the same parameters share a call; and the same dtypes, because joining a column of
        # large integers with one of floats (an integer was missing) would round them.
        self.key: Hashable = (
            msgspec.json.encode(params, order="sorted", enc_hook=str) if params else b"",
            *(column.dtype for column in inputs.columns),
            *(column.shape[1:] for column in inputs.columns),
        )
        self.since = time.perf_counter()


class Batcher:
    """Makes the calls of one loaded model."""

    def __init__(self, call: Call, policy: Policy, observed: metrics.ModelMetrics) -> None:
        self._call = call
        self.policy = policy
        self._observed = observed
        self._small: deque[_Entry] = deque()
        self._large: deque[_Entry] = deque()
        self._is_turn_of_large = False
        self._is_busy = False
        self._is_gathering = False
        # One thread: not every model may be called from two at once.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def predict(self, inputs: Inputs, params: dict[str, Any], gone: Gone) -> Output:
        """Returns what the model says of the rows.

        Args:
            inputs: whole request.
            params: of the request.
            gone: awaited while the request waits; its rows are dropped when it returns.

        Raises:
            QueueFull: too many requests wait already.
            ClientGone: the client hung up before its call was made.
            Exception: whatever the model raises.
        """
        if inputs.n_rows <= self.policy.inline_rows:
            return self._call(inputs, params)
        if len(self._small) + len(self._large) >= self.policy.max_queued_requests:
            self._drop_abandoned()
            if len(self._small) + len(self._large) >= self.policy.max_queued_requests:
                raise QueueFull(self.policy.max_queued_requests)
        loop = asyncio.get_running_loop()
        entry = _Entry(inputs, params, loop.create_future())
        is_large = inputs.n_rows * LARGE_RATIO > self.policy.max_batch_rows
        (self._large if is_large else self._small).append(entry)
        self._start_gathering(loop)
        watcher = loop.create_task(self._watch(entry, gone))
        try:
            return await entry.future
        finally:
            watcher.cancel()

    def close(self) -> None:
        """Ends the model's thread once the calls in it are done."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    async def _watch(entry: _Entry, gone: Gone) -> None:
        await gone()
        if not entry.future.done():
            entry.future.set_exception(ClientGone())

    def _drop_abandoned(self) -> None:
        self._small = deque(entry for entry in self._small if not entry.future.done())
        self._large = deque(entry for entry in self._large if not entry.future.done())

    def _gather(self, loop: asyncio.AbstractEventLoop, n_before: int, until: float) -> None:
        """Dispatches as soon as a turn of the event loop brings no further request.

        Clients that were answered by one batch send their next requests within a fraction of a millisecond,
        and the loop is busy reading them: the first must not go alone. With nothing to read this is one turn
        of an idle loop, some microseconds; and reading goes on for no longer than the call for one row would
        have taken, which is the most that going alone could have saved.
        """
        n_now = len(self._small)
        if (
            self.policy.batches
            and n_before < n_now < self.policy.max_batch_rows
            and time.perf_counter() < until
        ):
            loop.call_soon(self._gather, loop, n_now, until)
            return
        self._is_gathering = False
        batch = self._next_batch()
        if not batch:
            return
        self._is_busy = True
        now = time.perf_counter()
        for entry in batch:
            self._observed.waited(now - entry.since)
        self._observed.called(sum(entry.inputs.n_rows for entry in batch))
        work = self._thread.submit(self._answer, batch)
        work.add_done_callback(lambda done: self._hand_over(loop, batch, done))

    def _start_gathering(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_busy and not self._is_gathering and (self._small or self._large):
            self._is_gathering = True
            loop.call_soon(self._gather, loop, 0, time.perf_counter() + self.policy.gather_seconds)

    def _next_batch(self) -> list[_Entry]:
        """Whole requests, in the order of their arrival; large ones take turns with batches of small ones."""
        self._drop_abandoned()
        if self._large and (self._is_turn_of_large or not self._small):
            self._is_turn_of_large = False
            return [self._large.popleft()]
        self._is_turn_of_large = True
        if not self._small:
            return []
        first = self._small.popleft()
        batch, n_rows = [first], first.inputs.n_rows
        if not self.policy.batches:
            return batch
        others: list[_Entry] = []
        while self._small and n_rows + self._small[0].inputs.n_rows <= self.policy.max_batch_rows:
            entry = self._small.popleft()
            if entry.key == first.key:
                batch.append(entry)
                n_rows += entry.inputs.n_rows
            else:
                others.append(entry)
        self._small.extendleft(reversed(others))
        return batch

    def _answer(self, batch: list[_Entry]) -> list[Output | Exception]:
        """Makes the call, in the model's thread; where a shared one fails, one for each request."""
        if len(batch) > 1:
            n_rows = [entry.inputs.n_rows for entry in batch]
            try:
                output = self._call(join([entry.inputs for entry in batch]), batch[0].params)
                if count_output(output) == sum(n_rows):
                    return list(_split(output, n_rows))
            except BaseException:  # noqa: BLE001  # whose fault it was is found out below
                log.info("a call shared by %d requests failed; making one for each", len(batch))
        return [self._answer_one(entry) for entry in batch]

    def _answer_one(self, entry: _Entry) -> Output | Exception:
        try:
            return self._call(entry.inputs, entry.params)
        except StopIteration as error:  # a future takes any exception but this one
            return _as_exception(error)
        except Exception as error:  # noqa: BLE001  # it is raised where the request waits
            return error
        except BaseException as error:  # noqa: BLE001  # a model that exits, or panics in Rust, ends a request
            return _as_exception(error)

    def _hand_over(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Entry],
        done: "Future[list[Output | Exception]]",
    ) -> None:
        # The loop may have been closed meanwhile: nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._finish, loop, batch, done)

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Entry],
        done: "Future[list[Output | Exception]]",
    ) -> None:
        """Hands out the answers and looks for what has gathered meanwhile."""
        self._is_busy = False
        self._start_gathering(loop)
        if done.cancelled():
            return
        for entry, answer in zip(batch, done.result(), strict=True):
            if entry.future.done():
                if isinstance(answer, Exception):
                    forget_frames(answer)
            elif isinstance(answer, Exception):
                entry.future.set_exception(answer)
            else:
                entry.future.set_result(answer)


def _as_exception(error: BaseException) -> Exception:
    wrapped = RuntimeError(f"the model raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def forget_frames(error: BaseException) -> None:
    """Lets go of the frames that an exception has passed, and with them of the rows of its request.

    An exception that waited in a future is part of a cycle through them: they would stay until a collection.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link.__traceback__ = None  # one that was never raised has none, and what caused it may
        link = link.__cause__ or link.__context__


def _split(output: Output, n_rows: list[int]) -> Iterator[Output]:
    start = 0
    for n in n_rows:
        yield slice_output(output, start, start + n)
        start += n
