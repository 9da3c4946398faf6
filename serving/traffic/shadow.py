"""The shadow: copies requests to another model after the answer is sent, and compares its answers."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InternalError, ServingError
from serving.monitoring import metrics
from serving.process.logs import BY_CALLERS, Sparing, origin
from serving.runtime import Output, count_output
from serving.traffic.loaded import LoadedModel
from serving.traffic.routing import Route

log = logging.getLogger("serving.shadow")

_sparing = Sparing()

MAX_WAITING, MAX_WAITING_BYTES = 100, 50_000_000
"""Requests queued for the shadow per worker, and the size of their bodies; above it, requests are not copied."""

TOLERANCE = 1e-6
"""Relative difference up to which values are equal."""


class _Question(NamedTuple):
    route: Route
    answered: Output
    ask: Callable[[], Coroutine[Any, Any, Output]]
    n_bytes: int


class Shadow:
    """Copies requests and compares the answers; failures appear only in metrics and the log.

    Each turn of the event loop starts one copy, after the turn's requests: a compiled shadow answers on the loop, and a
    burst of copies would delay the requests behind it.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Question] = deque()
        self._asked: set[asyncio.Task[None]] = set()
        self._load: defaultdict[LoadedModel, list[int]] = defaultdict(lambda: [0, 0])
        """Queued requests and bytes per model: one that hangs does not block others."""

    def compare(
        self, route: Route, answered: Output, ask: Callable[[], Coroutine[Any, Any, Output]], n_bytes: int
    ) -> None:
        """Queues a copy; returns at once.

        Args:
            route: of the shadow.
            answered: what the caller got.
            ask: sends the request to the shadow.
            n_bytes: of the request.
        """
        n_waiting, n_bytes_waiting = self._load[route.model]
        if n_waiting >= MAX_WAITING or n_bytes_waiting + n_bytes > MAX_WAITING_BYTES:
            route.model.metrics.dropped()
            return
        self._waiting.append(_Question(route, answered, ask, n_bytes))
        self._load[route.model] = [n_waiting + 1, n_bytes_waiting + n_bytes]
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._ask_next)

    def _ask_next(self) -> None:
        question = self._waiting.popleft()
        loop = asyncio.get_running_loop()
        task = loop.create_task(_compare(question.route, question.answered, question.ask))
        self._asked.add(task)
        task.add_done_callback(partial(self._forget, question))
        if self._waiting:
            loop.call_soon(self._ask_next)

    def _forget(self, question: _Question, task: asyncio.Task[None]) -> None:
        self._asked.discard(task)
        n_waiting, n_bytes = self._load[question.route.model]
        if n_waiting == 1:
            del self._load[question.route.model]
        else:
            self._load[question.route.model] = [n_waiting - 1, n_bytes - question.n_bytes]


async def _compare(route: Route, answered: Output, ask: Callable[[], Coroutine[Any, Any, Output]]) -> None:
    manifest = route.model.manifest
    labels = (manifest.name, manifest.version, route.role)
    try:
        said = await ask()
    except ServingError as error:
        metrics.count_error(labels, error, error.status)
    except Exception as error:
        ending = _sparing.admit(route.model, *origin(error))
        if ending is not None:
            log.exception(
                "the shadow %s version %s failed%s", manifest.name, manifest.version, ending, extra=BY_CALLERS
            )
        mistake = InternalError("the shadow failed")
        metrics.count_error(labels, mistake, mistake.status)
    else:
        route.model.metrics.compared(count_output(answered), count_differences(answered, said))


def count_differences(first: Output, second: Output) -> int:
    """Returns the number of rows with different labels or values."""
    ours, theirs = _answers(first), _answers(second)
    if ours.shape != theirs.shape:
        return len(ours)
    if ours.dtype.kind in "fiu" and theirs.dtype.kind in "fiu" and first.labels is None:
        is_same = np.isclose(ours, theirs, rtol=TOLERANCE, atol=0, equal_nan=True)
    else:
        is_same = np.asarray(ours == theirs, dtype=bool)
    return int((~is_same.reshape(len(ours), -1).all(axis=1)).sum())


def _answers(output: Output) -> npt.NDArray[Any]:
    found = output.labels if output.labels is not None else output.values
    assert found is not None
    return found
