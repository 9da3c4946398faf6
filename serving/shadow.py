"""The shadow: another model is asked what was asked, after the answer is out, and its answers are compared."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import ServingError
from serving.monitoring import metrics
from serving.routing import Route
from serving.runtime import Output, count_output

log = logging.getLogger("serving.shadow")

MAX_WAITING, MAX_WAITING_BYTES = 100, 50_000_000
"""Requests that may wait for the shadow in a worker, and what their bodies may take; what comes meanwhile it is not
asked."""

TOLERANCE = 1e-6
"""Values that differ by no more than this part of them are the same."""


class _Question(NamedTuple):
    route: Route
    answered: Output
    ask: Callable[[], Coroutine[Any, Any, Output]]
    n_bytes: int


class Shadow:
    """Asks, and compares; whatever goes wrong is nobody's business but the metrics'.

    One question begins in each turn of the event loop, after the requests that came in it: a compiled shadow
    answers on the loop, and a burst of questions would hold up the requests behind it.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Question] = deque()
        self._asked: dict[asyncio.Task[None], int] = {}
        self._n_bytes = 0

    def compare(
        self, route: Route, answered: Output, ask: Callable[[], Coroutine[Any, Any, Output]], n_bytes: int
    ) -> None:
        """Begins to ask; returns at once.

        Args:
            route: of the shadow.
            answered: what the caller got.
            ask: asks the shadow.
            n_bytes: of the request.
        """
        n_waiting = len(self._waiting) + len(self._asked)
        if n_waiting >= MAX_WAITING or self._n_bytes + n_bytes > MAX_WAITING_BYTES:
            route.model.metrics.dropped()
            return
        self._waiting.append(_Question(route, answered, ask, n_bytes))
        self._n_bytes += n_bytes
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._ask_next)

    def _ask_next(self) -> None:
        route, answered, ask, n_bytes = self._waiting.popleft()
        loop = asyncio.get_running_loop()
        task = loop.create_task(_compare(route, answered, ask()))
        self._asked[task] = n_bytes
        task.add_done_callback(self._forget)
        if self._waiting:
            loop.call_soon(self._ask_next)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._n_bytes -= self._asked.pop(task)


async def _compare(route: Route, answered: Output, asking: Coroutine[Any, Any, Output]) -> None:
    manifest = route.model.manifest
    try:
        said = await asking
    except ServingError as error:
        metrics.count_error(manifest.name, manifest.version, route.role, error.code)
    except Exception:
        log.exception("the shadow %s version %s failed", manifest.name, manifest.version)
        metrics.count_error(manifest.name, manifest.version, route.role, "internal_error")
    else:
        route.model.metrics.compared(count_output(answered), count_differences(answered, said))


def count_differences(first: Output, second: Output) -> int:
    """Returns the number of rows to which two models give different answers: other labels, or other values."""
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
