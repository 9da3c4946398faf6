"""Counts the rows of a loaded model into the bins of its reference, in bulk and off the request path."""

import hashlib
import logging
import time
from pathlib import Path

import numpy as np

from serving.model.prepared import Manifest
from serving.model.schema import Inputs
from serving.monitoring.drift.features import NUMBER, Binner, Counted, Feature, Values, to_numbers
from serving.monitoring.drift.reference import SCORE, Reference, input_values, output_values
from serving.monitoring.drift.tally import Floats, Tally, open_tally, own_path, read_tallies
from serving.monitoring.finished import Finished
from serving.monitoring.metrics import ScoreMetrics
from serving.process.logs import Sparing, origin
from serving.runtime import Output, count_output

log = logging.getLogger("serving.drift")

_sparing = Sparing()

BULK_ROWS = 256
"""Rows that are binned together."""

BULK_SECONDS = 1.0
"""Time after which fewer are."""

MAX_REQUEST_ROWS = 1_024
"""Rows of one request that are counted: evenly spaced ones of a larger request."""

ROWS_PER_SECOND, BURST_ROWS = 250, 10_000
"""Rows that a worker counts: all of a burst, and of sustained traffic so many per second. Counting every row of 2,400 requests
per second took 15 % of them; a million rows an hour tell no more than these."""

MIN_REQUEST_ROWS = 32
"""Rows that a larger request must be able to contribute, for taking a few costs as much as taking many."""


PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 11))
"""Buckets of probabilities."""


class Recorder:
    """Counts the rows of one loaded model."""

    def __init__(
        self,
        manifest: Manifest,
        reference: Reference,
        key: str,
        folder: Path | None,
        *,
        n_inputs: int,
        window_seconds: float,
    ) -> None:
        """Opens the worker's tally.

        Args:
            manifest: of the model.
            reference: of the model.
            key: of the model, the same in every worker.
            folder: shared by the workers; None keeps the counts in this process.
            n_inputs: the number of inputs to monitor, the first ones of the reference.
            window_seconds: length of the window.
        """
        self.features = reference.monitored(n_inputs)
        self.reference = reference
        self._manifest = manifest
        self._score = next(
            (one for one in self.features if one.is_output and one.edges and not one.element), None
        )
        self._scores: dict[str, ScoreMetrics] = {}
        self.window_seconds = window_seconds
        self._binners = [Binner(feature) for feature in self.features]
        self._folder = folder
        self._key = hashlib.sha256(key.encode()).hexdigest()[:16]
        self._path = own_path(folder, self._key) if folder else None
        self._tally = Tally(self.features, window_seconds)
        self._is_shared = False
        self._trouble: str | None = None
        self._share()
        self._waiting: list[tuple[Inputs, Output | None, str]] = []
        self._n_waiting = self._n_seen = 0
        self._allowed_rows, self._earned_until = float(BURST_ROWS), time.perf_counter()
        self._flushed = time.monotonic()

    def _share(self) -> None:
        """Counts into a file that the other workers read, as soon as there is space for one."""
        if self._path is None or (self._is_shared and self._path.exists()):
            return
        try:
            tally = open_tally(self._path, self.features, self.window_seconds)
        except OSError as error:
            self._is_shared = False
            if self._trouble != error.strerror:
                self._trouble = error.strerror
                log.warning(
                    "rows of this worker are not shown in /v1/drift: %s: %s (retrying)",
                    self._folder,
                    self._trouble,
                )
            return
        if self._trouble:
            log.info("rows of this worker are shown in /v1/drift again")
        self._trouble, self._is_shared = None, True
        if not tally.totals.any():
            tally.take_over(self._tally)
        self._tally = tally

    def observe(self, finished: Finished) -> None:
        """Notes the rows of an answered request."""
        inputs, output = finished.inputs, finished.output
        self._n_seen += inputs.n_rows
        earned = (finished.ended - self._earned_until) * ROWS_PER_SECOND
        self._allowed_rows = min(self._allowed_rows + earned, BURST_ROWS)
        self._earned_until = finished.ended
        if self._allowed_rows < min(inputs.n_rows, MIN_REQUEST_ROWS):
            return
        n_rows = min(inputs.n_rows, MAX_REQUEST_ROWS, int(self._allowed_rows))
        self._allowed_rows -= n_rows
        answered = output if count_output(output) == inputs.n_rows else None
        if n_rows < inputs.n_rows:
            inputs, answered = _thin(inputs, answered, n_rows)
        self._waiting.append((inputs, answered, finished.role))
        self._n_waiting += inputs.n_rows

    def flush(self, *, is_forced: bool = False) -> None:
        """Bins the noted rows if there are many, or some have waited long."""
        now = time.monotonic()
        if not self._waiting or not (
            is_forced or self._n_waiting >= BULK_ROWS or now - self._flushed >= BULK_SECONDS
        ):
            return
        waiting, self._waiting = self._waiting, []
        n_rows, self._n_waiting = self._n_waiting, 0
        n_seen, self._n_seen = self._n_seen, 0
        self._flushed = now
        self._share()
        try:
            self._count(waiting, n_rows, n_seen, now)
        except Exception as error:  # it is logged: requests go on
            ending = _sparing.admit(self._key, *origin(error))
            if ending is not None:
                log.exception("rows are not counted for drift%s", ending)

    def _count(
        self, waiting: list[tuple[Inputs, Output | None, str]], n_rows: int, n_seen: int, now: float
    ) -> None:
        answered = _join_outputs([output for _, output, _ in waiting], n_rows)
        columns = {
            position: _join([inputs.columns[position] for inputs, _, _ in waiting], n_rows)
            for position in {feature.position for feature in self.features if not feature.is_output}
        }
        counted: list[Counted | None] = []
        numbers: list[Floats] = []
        for feature, binner in zip(self.features, self._binners, strict=True):
            if feature.is_output:
                values = output_values(feature, answered) if answered is not None else None
            else:
                values = input_values(feature, columns[feature.position])
            counted.append(None if values is None else binner.count(values))
            if feature.kind == NUMBER:
                numbers.append(np.full(n_rows, np.nan) if values is None else to_numbers(values))
        if self._score is not None and answered is not None:
            self._count_scores(self._score, answered, waiting)
        stacked = np.column_stack(numbers) if numbers else np.empty((n_rows, 0))
        self._tally.add(counted, n_rows, n_seen, stacked, now)

    def _count_scores(
        self, feature: Feature, answered: Output, waiting: list[tuple[Inputs, Output | None, str]]
    ) -> None:
        scores = output_values(feature, answered)
        assert scores is not None
        roles = {role for _, _, role in waiting}
        if len(roles) > 1:  # the version has just changed its role
            by_row = np.repeat([role for _, _, role in waiting], [inputs.n_rows for inputs, _, _ in waiting])
        for role in roles:
            if role not in self._scores:
                bounds = PROBABILITIES if feature.name == SCORE else feature.edges[1:]
                self._scores[role] = ScoreMetrics(self._manifest, role, bounds)
            self._scores[role].add(to_numbers(scores if len(roles) == 1 else scores[by_row == role]))

    def tallies(self) -> list[Tally]:
        """Returns the counts of all workers that have space for their file; at least one."""
        self.flush(is_forced=True)
        if self._folder is None:
            return [self._tally]
        found = list(read_tallies(self._folder, self._key, self._tally, self.window_seconds))
        return found or [Tally(self.features, self.window_seconds)]

    def close(self) -> None:
        """Counts the rest when the model is unloaded."""
        self.flush(is_forced=True)
        self._tally.close()


def _thin(inputs: Inputs, output: Output | None, n_rows: int) -> tuple[Inputs, Output | None]:
    """Returns copies of evenly spaced rows."""
    chosen = np.linspace(0, inputs.n_rows - 1, n_rows).astype(np.intp)

    def of(values: Values | None) -> Values | None:
        return None if values is None else values[chosen]

    rows = Inputs(tuple(column[chosen] for column in inputs.columns), len(chosen))
    if output is None:
        return rows, None
    return rows, Output(of(output.labels), of(output.probabilities), of(output.values))


def _join(parts: list[Values], n_rows: int) -> Values:
    """Returns the values of several requests as one array."""
    if n_rows > len(parts) or parts[0].ndim > 1 or parts[0].dtype.kind in "mM":
        return np.concatenate(parts)
    # Of requests with one row each, Python's objects are joined twice as fast.
    joined = np.empty(n_rows, dtype=object)
    joined[:] = [part.item() for part in parts]
    return joined


def _join_outputs(outputs: list[Output | None], n_rows: int) -> Output | None:
    """Returns all outputs as one; None if a request has no output for each of its rows."""
    found = [output for output in outputs if output is not None]
    if len(found) < len(outputs):
        return None

    def join(parts: list[Values | None]) -> Values | None:
        there = [part for part in parts if part is not None]
        return _join(there, n_rows) if len(there) == len(parts) else None

    return Output(
        join([output.labels for output in found]),
        join([output.probabilities for output in found]),
        join([output.values for output in found]),
    )
