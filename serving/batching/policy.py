"""What calls of a model cost, measured when it is loaded, and how they are made because of that."""

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
"""A call that takes longer than this is measured twice, and no larger one is."""

INLINE_SECONDS = 0.0005
"""A call may hold the event loop for so long: a few times what reading and answering a request costs."""

TURN_SECONDS = 0.00002
"""What sharing a call on the event loop costs a request: its rows are joined with others, and it is woken."""


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
    """Measures what calls cost, by a clock in seconds, with the rows of `inputs` over and over.

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
            if best > MEASURE_SECONDS and n_calls:  # once may have been bad luck
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
    """Requests of up to this many rows are answered on the event loop; 0 is none."""
    turn_rows: int
    """Of those, requests that one turn of the event loop has brought share calls of up to this many rows; 0
    is none."""
    max_batch_rows: int
    max_queued_requests: int
    gather_seconds: float
    """What the call for one row costs: for so long at most more requests are taken in before a call."""
    timeout_seconds: float
    """What a request may take, and a call."""


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
        mode: `on` batches whatever the costs, `off` never, `auto` where it pays.
        costs: as measured.
        is_compiled: only a compiled model is called on the event loop: what another one does with the next
            rows nobody knows.
        is_rowwise: whether a row's answer is independent of the rows beside it; where it is not, only
            `on` batches.
        max_batch_rows: rows of one shared call.
        max_queued_requests: requests that may wait.
        timeout_seconds: what a request may take.
    """
    inline_rows = 0
    if is_compiled and mode != "on":
        # The largest power of two that stays below the limit.
        while costs.estimate(max(2 * inline_rows, 1)) <= INLINE_SECONDS and inline_rows < max_batch_rows:
            inline_rows = max(2 * inline_rows, 1)
        inline_rows = min(inline_rows, max_batch_rows)
    may_share = mode == "auto" and is_rowwise
    batches = mode == "on" or (may_share and inline_rows == 0)
    saved = costs.estimate(1) - costs.estimate(8) / 8
    # A turn's requests would hold the loop one after the other, too: sharing makes that shorter, never longer.
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
