"""Counts of one worker's model, in a file that the other workers read."""

import logging
import mmap
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serving.monitoring.drift.features import NUMBER, Counted, Feature
from serving.monitoring.reserved import reserve

log = logging.getLogger("serving.drift")

Floats = npt.NDArray[np.float64]

N_SLOTS = 12
"""Parts of the window; the oldest is dropped when a new one begins."""

N_SAMPLED = 1_000
"""Rows of the window whose numbers are kept, for the Kolmogorov-Smirnov statistic."""

KEPT_SECONDS = 86_400
"""Time after which the file of an unloaded model is deleted. Prometheus would see an earlier deletion as a restart."""

_random = np.random.default_rng()

_CLOSED, _POSITION, _N_HEADER = 0, 1, 2
_SEEN, _COUNTED, _N_ROWS = 0, 1, 2
_UNKNOWN, _FINITE, _TOTAL, _N_MORE = 0, 1, 2, 3


class Tally:
    """Counts of features: since the start, by part of the window, and a sample of rows.

    All numbers are doubles in one array: counts are exact up to 2**53. Times are from `time.monotonic`, which all processes
    share and no clock change moves.
    """

    def __init__(
        self, features: Iterable[Feature], window_seconds: float, numbers: Floats | None = None
    ) -> None:
        """Lays out the array.

        Args:
            features: in the same order in every worker.
            window_seconds: length of the window.
            numbers: as another process wrote them; default: zeros.
        """
        self.features = tuple(features)
        self._slot_seconds = window_seconds / N_SLOTS
        self._n_numbers = sum(feature.kind == NUMBER for feature in self.features)
        starts = np.cumsum([_N_ROWS, *(len(feature.bins) + _N_MORE for feature in self.features)])
        self._starts, self.n_cells = starts.tolist(), int(starts[-1])
        sizes = (_N_HEADER, self.n_cells, N_SLOTS * (1 + self.n_cells), N_SAMPLED * (1 + self._n_numbers))
        self.n_bytes = 8 * sum(sizes)
        self.numbers = numbers = np.zeros(sum(sizes)) if numbers is None else numbers
        self._header, self.totals, slots, sample = np.split(numbers, np.cumsum(sizes)[:-1])
        self._slots = slots.reshape(N_SLOTS, -1)
        self._sample = sample.reshape(N_SAMPLED, -1)

    def add(
        self, counted: list[Counted | None], n_rows: int, n_seen: int, numbers: Floats, now: float
    ) -> None:
        """Adds rows.

        Args:
            counted: by feature; None if the rows do not have it.
            n_rows: counted.
            n_seen: rows of all requests, including those that are not counted.
            numbers: of the features that are numbers, shape `(n_rows, n_numbers)`; NaN for missing ones.
            now: the time.
        """
        cells = np.zeros(self.n_cells)
        cells[[_SEEN, _COUNTED]] = n_seen, n_rows
        for start, feature, found in zip(self._starts, self.features, counted, strict=False):
            if found is not None:
                end = start + len(feature.bins)
                cells[start:end] = found.bins
                cells[end : end + _N_MORE] = found.n_unknown, found.n_finite, found.total
        self.totals += cells
        self._header[_CLOSED] = (
            0  # an earlier instance of the model may have been closed after this one was opened
        )
        number = self._slot_number(now)
        slot = self._slots[number % N_SLOTS]
        if slot[0] != number:
            slot[1:] = 0
            slot[0] = number
        slot[1:] += cells
        in_window = self.window(now)[_COUNTED]
        n_kept = _random.binomial(n_rows, min(1, N_SAMPLED / max(in_window, 1)))
        if n_kept:
            chosen = _random.choice(n_rows, min(int(n_kept), N_SAMPLED), replace=False)
            positions = (int(self._header[_POSITION]) + np.arange(len(chosen))) % N_SAMPLED
            self._sample[positions, 0] = now
            self._sample[positions, 1:] = numbers[chosen]
            self._header[_POSITION] = (positions[-1] + 1) % N_SAMPLED

    def _slot_number(self, now: float) -> int:
        # Above 0, which marks an unused slot, even in the first seconds after the machine's start.
        return int(now / self._slot_seconds) + N_SLOTS

    def window(self, now: float) -> Floats:
        """Returns the cells of the window."""
        current = self._slot_number(now)
        numbers = self._slots[:, 0]
        return np.asarray(self._slots[(numbers > current - N_SLOTS) & (numbers <= current), 1:].sum(axis=0))

    def sample(self, now: float) -> Floats:
        """Returns the sampled numbers of the window, shape `(n_rows, n_numbers)`."""
        times = self._sample[:, 0]
        return self._sample[(times > max(now - N_SLOTS * self._slot_seconds, 0)) & (times <= now), 1:]

    def take_over(self, other: "Tally") -> None:
        """Copies what another tally of these features has counted."""
        self.numbers[:] = other.numbers

    def of(self, index: int, cells: Floats) -> Counted:
        """Returns what cells hold of a feature."""
        start = self._starts[index]
        end = start + len(self.features[index].bins)
        unknown, finite, total = cells[end : end + _N_MORE]
        return Counted(cells[start:end].astype(np.int64), int(unknown), float(total), int(finite))

    @staticmethod
    def n_rows(cells: Floats) -> tuple[int, int]:
        """Returns how many rows cells count, and how many there were."""
        return int(cells[_COUNTED]), int(cells[_SEEN])

    def close(self) -> None:
        """Marks the model as unloaded."""
        self._header[_CLOSED] = time.monotonic()

    def reopen(self) -> None:
        """Marks it as loaded again."""
        self._header[_CLOSED] = 0


def own_path(folder: Path, key: str) -> Path:
    """Returns the file of this worker's tally of a model."""
    return folder / f"{key}.{os.getpid()}"


def open_tally(path: Path, features: Iterable[Feature], window_seconds: float) -> Tally:
    """Returns the tally of this worker.

    Args:
        path: its file, which may exist: the model was loaded before, and counts on.
        features: to count.
        window_seconds: length of the window.

    Raises:
        OSError: there is no space, or the folder is gone.
    """
    features = tuple(features)
    path.parent.mkdir(exist_ok=True)
    _delete_expired(path.parent)
    n_bytes = Tally(features, window_seconds).n_bytes
    numbers = _map(path, is_writable=True)
    if numbers is not None and numbers.nbytes == n_bytes:
        tally = Tally(features, window_seconds, numbers)
        tally.reopen()
        return tally
    try:
        reserve(str(path), n_bytes)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return Tally(features, window_seconds, _map(path, is_writable=True))


def read_tallies(folder: Path, key: str, own: Tally, window_seconds: float) -> Iterator[Tally]:
    """Yields the tallies of all workers that have a file, including ended ones.

    One in private memory is left out: with it, the sums would depend on the worker that is asked.
    """
    for path in sorted(folder.glob(f"{key}.*")):
        if path == own_path(folder, key):
            yield own
            continue
        numbers = _map(path)
        if numbers is not None and numbers.nbytes == own.n_bytes:
            yield Tally(own.features, window_seconds, numbers)


def _delete_expired(folder: Path) -> None:
    before = time.monotonic() - KEPT_SECONDS
    for path in folder.glob("*.*"):
        numbers = _map(path)
        if numbers is not None and 0 < numbers[_CLOSED] < before:
            path.unlink(missing_ok=True)


def _map(path: Path, *, is_writable: bool = False) -> Floats | None:
    """Returns a file's numbers, which change with it; None if it is gone or empty."""
    try:
        with path.open("r+b" if is_writable else "rb") as file:
            access = mmap.ACCESS_WRITE if is_writable else mmap.ACCESS_READ
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=access), dtype=np.float64)
    except (OSError, ValueError):
        return None
