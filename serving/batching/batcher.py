"""The adaptive batcher: calls a model for one request or for several at once.

A compiled model answers a row faster than a request is read: it is called on the event loop, and only large requests go
to the model's thread. A lone request is answered at once; requests of several clients that are read in one turn of the
loop share a call. If every call is expensive regardless of its size (scikit-learn on a DataFrame), all requests go to
the thread, and those that gather during a call share the next one. Nothing ever waits for a timer.
`serving.batching.policy` decides which of this applies to a model.

A call in the thread cannot be cancelled. A request that times out gets an error while its call goes on; and while a
call exceeds the request timeout, further requests are rejected.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec

from serving.batching.policy import Call, Policy
from serving.errors import ClientGone, ModelBusy, ModelNotReady, QueueFull, TimedOut
from serving.model.schema import Inputs, join
from serving.monitoring import metrics
from serving.monitoring.tracing.timeline import Timeline
from serving.process.garbage_collector import forget_frames
from serving.process.logs import Sparing
from serving.process.threads import as_exception
from serving.runtime import Output, count_output, slice_output

log = logging.getLogger("serving.batching")

_sparing = Sparing()

Gone = Callable[[], Awaitable[Any]]
"""Returns when the client has disconnected."""

LARGE_RATIO = 8
"""A request with more than this part (1/8) of a batch's rows is large: it runs alone, between two batches."""


class _Entry:
    """A request that waits for its call."""

    __slots__ = ("future", "has_begun", "inputs", "key", "params", "since", "timeline")

    def __init__(
        self,
        inputs: Inputs,
        params: dict[str, Any],
        future: "asyncio.Future[Output]",
        timeline: Timeline | None,
    ) -> None:
        self.inputs, self.params, self.future, self.timeline = inputs, params, future, timeline
        # Only requests with the same parameters and dtypes share a call: joining a column of large integers with one
        # of floats (an integer was missing) would round them.
        self.key: Hashable = (
            msgspec.json.encode(params, order="sorted", enc_hook=str) if params else b"",
            *[column.dtype for column in inputs.columns],
            *[column.shape[1:] for column in inputs.columns if column.ndim > 1],
        )
        self.since = time.perf_counter()
        self.has_begun = False
        """Whether its call has started."""


class Batcher:
    """Makes the calls of one loaded model."""

    def __init__(self, call: Call, policy: Policy, observed: metrics.ModelMetrics) -> None:
        self._call = call
        self.policy = policy
        self._observed = observed
        self._small: deque[_Entry] = deque()
        self._large: deque[_Entry] = deque()
        self._is_turn_of_large = False
        self._is_gathering = False
        self._call_seconds: float | None = None
        """Duration of the call in the thread, as counted by `pass_time`; None without a call."""
        self.is_stuck = False
        """Whether the call in the thread exceeds the request timeout."""
        self._in_turn: list[_Entry] = []
        self._n_in_turn = self._n_in_last_turn = 0
        # One thread: not every model is thread-safe.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def predict(
        self,
        inputs: Inputs,
        params: dict[str, Any],
        gone: Gone,
        deadline: float | None = None,
        timeline: Timeline | None = None,
    ) -> Output:
        """Returns the model's answer to the rows.

        Args:
            inputs: the whole request.
            params: of the request.
            gone: awaited while the request waits; its rows are dropped when it returns.
            deadline: by `time.perf_counter`; default: the policy's timeout from now on. Calls on the event loop have
                none: they are too short for a timer to pay off.
            timeline: gets the time of the call.

        Raises:
            QueueFull: the queue is full.
            ModelBusy: the deadline passed before the call started, or a stuck call blocks the model.
            TimedOut: the deadline passed during the call.
            ClientGone: the client disconnected before the call started.
            Exception: whatever the model raises.
        """
        if inputs.n_rows <= self.policy.inline_rows:
            if inputs.n_rows * LARGE_RATIO > self.policy.turn_rows or self._is_alone():
                if timeline is not None:
                    timeline.called = time.perf_counter()
                return self._call(inputs, params)
            entry = _Entry(inputs, params, asyncio.get_running_loop().create_future(), timeline)
            self._in_turn.append(entry)
            return await entry.future
        if self.is_stuck:
            raise self._too_busy()
        if len(self._small) + len(self._large) >= self.policy.max_queued_requests:
            self._drop_abandoned()
            if len(self._small) + len(self._large) >= self.policy.max_queued_requests:
                raise QueueFull(
                    f"{self.policy.max_queued_requests} requests are queued already "
                    "(SERVING_MAX_QUEUED_REQUESTS); try again shortly"
                )
        loop = asyncio.get_running_loop()
        entry = _Entry(inputs, params, loop.create_future(), timeline)
        is_large = inputs.n_rows * LARGE_RATIO > self.policy.max_batch_rows
        (self._large if is_large else self._small).append(entry)
        self._start_gathering(loop)
        watcher = loop.create_task(self._watch(entry, gone))
        left = self.policy.timeout_seconds if deadline is None else deadline - time.perf_counter()
        timer = loop.call_later(max(left, 0), self._give_up, entry)
        try:
            return await entry.future
        finally:
            watcher.cancel()
            timer.cancel()
            if not entry.has_begun:  # nobody waits for it: drop its rows
                with contextlib.suppress(ValueError):
                    (self._large if is_large else self._small).remove(entry)

    def _give_up(self, entry: _Entry) -> None:
        if not entry.future.done():
            entry.future.set_exception(TimedOut() if entry.has_begun else self._too_busy())

    def _too_busy(self) -> ModelBusy:
        if self.is_stuck:
            return ModelBusy(
                f"a model call has exceeded {self.policy.timeout_seconds:g} s (SERVING_REQUEST_TIMEOUT_SECONDS) "
                "and is still running; try again shortly"
            )
        return ModelBusy("the model was busy with other requests until this one timed out; try again")

    @property
    def is_calling(self) -> bool:
        """Whether a call is running in the thread."""
        return self._call_seconds is not None

    def pass_time(self, seconds: float) -> float:
        """Counts time for the running call, and rejects the requests queued behind it when it is stuck.

        Args:
            seconds: since the last time, as far as this process could run.

        Returns:
            Duration of the call in seconds; 0 without a call.
        """
        if self._call_seconds is None:
            return 0
        self._call_seconds += seconds
        if self._call_seconds > self.policy.timeout_seconds and not self.is_stuck:
            self.is_stuck = True
            for entry in (*self._small, *self._large):
                self._give_up(entry)
            self._small.clear()
            self._large.clear()
        return self._call_seconds

    def _is_alone(self) -> bool:
        """Counts a request of this turn of the event loop; returns whether the last turn with requests had only one."""
        self._n_in_turn += 1
        if self._n_in_turn == 1:
            asyncio.get_running_loop().call_soon(self._end_turn)
        return self._n_in_last_turn < 2

    def _end_turn(self) -> None:
        """Answers the requests of one turn of the event loop in shared calls."""
        self._n_in_last_turn, self._n_in_turn = self._n_in_turn, 0
        waiting, self._in_turn = deque(self._in_turn), []
        while waiting:
            batch = _take_batch(waiting, self.policy.turn_rows)
            self._observe(batch)
            _hand_out(batch, self._answer_together(batch) or [self._answer_one(entry) for entry in batch])

    def _observe(self, batch: list[_Entry]) -> None:
        now = time.perf_counter()
        for entry in batch:
            self._observed.waited(now - entry.since)
            if entry.timeline is not None:
                entry.timeline.called = now
        self._observed.called(sum(entry.inputs.n_rows for entry in batch))

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

        Clients answered by one batch send their next requests within a fraction of a millisecond, while the loop is busy
        reading: the first must not go alone. With nothing to read this takes one turn of an idle loop, some microseconds.
        Gathering never exceeds the cost of a call for one row, which is the most that going alone could save.
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
        self._call_seconds = 0.0
        for entry in batch:
            entry.has_begun = True
        self._observe(batch)
        try:
            work = self._thread.submit(self._answer, loop, batch)
        except RuntimeError:  # the thread has ended: the worker is stopping
            self._call_seconds = None
            _hand_out(batch, [ModelNotReady("the model is no longer loaded") for _ in batch])
            return
        work.add_done_callback(lambda done: _call_soon(loop, self._finish, loop, done))

    def _start_gathering(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._call_seconds is None and not self._is_gathering and (self._small or self._large):
            self._is_gathering = True
            loop.call_soon(self._gather, loop, 0, time.perf_counter() + self.policy.gather_seconds)

    def _next_batch(self) -> list[_Entry]:
        """Whole requests, in order of arrival; large ones alternate with batches of small ones."""
        self._drop_abandoned()
        if self._large and (self._is_turn_of_large or not self._small):
            self._is_turn_of_large = False
            return [self._large.popleft()]
        self._is_turn_of_large = True
        if not self._small:
            return []
        return _take_batch(self._small, self.policy.max_batch_rows if self.policy.batches else 0)

    def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[_Entry]) -> "_Answered":
        """Calls the model in its thread; if a shared call fails, once for each request.

        Returns:
            The answers still to be handed out: after single calls, only the last. One of these may never end, and must
            not delay the answers before it.
        """
        answers = self._answer_together(batch)
        if answers is not None:
            return batch, answers
        *others, last = batch
        for entry in others:
            _call_soon(loop, _hand_out, [entry], [self._answer_one(entry)])
        return [last], [self._answer_one(last)]

    def _answer_together(self, batch: list[_Entry]) -> list[Output | Exception] | None:
        """Makes one call for all; returns None for a single request, or if the call failed."""
        if len(batch) > 1:
            n_rows = [entry.inputs.n_rows for entry in batch]
            try:
                output = self._call(join([entry.inputs for entry in batch]), batch[0].params)
                if count_output(output) == sum(n_rows):
                    return list(_split(output, n_rows))
            except BaseException:  # noqa: BLE001  # single calls find the culprit
                ending = _sparing.admit(id(self))
                if ending is not None:
                    log.info(
                        "a call shared by %d requests failed; making one per request%s", len(batch), ending
                    )
        return None

    def _answer_one(self, entry: _Entry) -> Output | Exception:
        if entry.future.done():  # nobody waits
            return ClientGone()
        try:
            return self._call(entry.inputs, entry.params)
        except BaseException as error:  # noqa: BLE001  # raised where the request waits
            return as_exception(error)

    def _finish(self, loop: asyncio.AbstractEventLoop, done: "Future[_Answered]") -> None:
        """Hands out the answers, and starts on the requests that have gathered meanwhile."""
        self._call_seconds, self.is_stuck = None, False
        self._start_gathering(loop)
        if not done.cancelled():
            _hand_out(*done.result())


_Answered = tuple[list[_Entry], list[Output | Exception]]


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Calls a function on the event loop, from another thread."""
    # The loop may be closed: then nobody waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)


def _take_batch(waiting: deque[_Entry], max_rows: int) -> list[_Entry]:
    """Takes the first waiting request, and those that may share its call."""
    first = waiting.popleft()
    batch, n_rows = [first], first.inputs.n_rows
    others: list[_Entry] = []
    while waiting and n_rows + waiting[0].inputs.n_rows <= max_rows:
        entry = waiting.popleft()
        if entry.key == first.key:
            batch.append(entry)
            n_rows += entry.inputs.n_rows
        else:
            others.append(entry)
    waiting.extendleft(reversed(others))
    return batch


def _hand_out(batch: list[_Entry], answers: list[Output | Exception]) -> None:
    for entry, answer in zip(batch, answers, strict=True):
        if entry.future.done():
            if isinstance(answer, Exception):
                forget_frames(answer)
        elif isinstance(answer, Exception):
            entry.future.set_exception(answer)
        else:
            entry.future.set_result(answer)


def _split(output: Output, n_rows: list[int]) -> Iterator[Output]:
    start = 0
    for n in n_rows:
        yield slice_output(output, start, start + n)
        start += n
