"""Measures the cost of a model's calls when it is loaded, and chooses the batching policy from it."""

import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np

from serving.model.schema import Inputs, join, take
from serving.runtime import Output

Call = Callable[[Inputs, dict[str, Any]], Output]

MEASURED_ROWS = (1, 8, 64, 512)

MEASURE_SECONDS = 0.25
"""A call that takes longer than this is measured twice, and larger ones are not measured."""

INLINE_SECONDS = 0.0005
"""How long a call may block the event loop: a few times the cost of reading and answering a request."""

TURN_SECONDS = 0.00002
"""Overhead per request of sharing a call on the event loop: joining rows and waking the request."""


class Costs(msgspec.Struct, frozen=True):
    """Seconds that calls took, by their number of rows; ascending."""

    seconds: dict[int, float]

    def estimate(self, n_rows: int) -> float:
        """Returns the seconds that a call of `n_rows` will take, between and beyond the measured ones."""
        rows = list(self.seconds)
        if n_rows >= rows[-1]:
            return self.seconds[rows[-1]] * n_rows / rows[-1]
        return float(np.interp(n_rows, rows, list(self.seconds.values())))


def measure_costs(
    call: Call, inputs: Inputs, params: dict[str, Any], clock: Callable[[], float] = time.perf_counter
) -> Costs:
    """Measures the cost of calls, by a clock in seconds, with the rows of `inputs` repeated.

    Raises:
        Exception: whatever the model raises.
    """
    seconds: dict[int, float] = {}
    # The first call of a library's code imports, allocates and starts threads.
    call(take(inputs, 0, 1), params)
    for n_rows in MEASURED_ROWS:
        rows = take(join([inputs] * -(-n_rows // inputs.n_rows)), 0, n_rows)
        best = float("inf")
        for n_calls in range(3):
            started = clock()
            call(rows, params)
            best = min(best, clock() - started)
            if best > MEASURE_SECONDS and n_calls:  # once may be an outlier
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
    """Requests of up to this many rows are answered on the event loop; 0 for none."""
    turn_rows: int
    """Row limit of calls shared by such requests of one turn of the event loop; 0 for no sharing."""
    max_batch_rows: int
    max_queued_requests: int
    gather_seconds: float
    """Cost of a call for one row, and the longest time that requests are gathered before a call."""
    timeout_seconds: float
    """Timeout of a request, and of a call."""


def choose_policy(
    mode: Literal["auto", "on", "off"],
    costs: Costs,
    *,
    is_compiled: bool,
    is_rowwise: bool,
    max_batch_rows: int,
    max_queued_requests: int,
    timeout_seconds: float,
) -> Policy:
    """Returns the policy for a model of these costs.

    Args:
        mode: `on` batches regardless of costs, `off` never, `auto` if it is faster.
        costs: as measured.
        is_compiled: only compiled models are called on the event loop: the call time of others is unpredictable.
        is_rowwise: whether a row's answer is independent of the other rows; if not, only `on` batches.
        max_batch_rows: row limit of a shared call.
        max_queued_requests: requests that may wait.
        timeout_seconds: of a request.
    """
    inline_rows = 0
    if is_compiled and mode != "on":
        # The largest power of two within the limit.
        while costs.estimate(max(2 * inline_rows, 1)) <= INLINE_SECONDS and inline_rows < max_batch_rows:
            inline_rows = max(2 * inline_rows, 1)
        inline_rows = min(inline_rows, max_batch_rows)
    may_share = mode == "auto" and is_rowwise
    batches = mode == "on" or (may_share and inline_rows == 0)
    saved = costs.estimate(1) - costs.estimate(8) / 8
    # A turn's requests block the loop one after the other anyway: sharing only shortens that.
    turn_rows = max_batch_rows if may_share and inline_rows and saved > TURN_SECONDS else 0
    return Policy(
        batches,
        inline_rows,
        turn_rows,
        max_batch_rows,
        max_queued_requests,
        costs.estimate(1),
        timeout_seconds,
    )
