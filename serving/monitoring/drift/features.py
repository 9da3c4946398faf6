"""The bins in which drift is counted. They are frozen when a model is prepared, so that all workers and pods agree."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]

NUMBER, CATEGORY, PRESENCE = "number", "category", "presence"

OUTPUT_TOLERANCE = 1e-6
"""Relative to the largest number."""

MISSING, BELOW, ABOVE, OTHER, PRESENT = "missing", "below", "above", "other", "present"


class Feature(msgspec.Struct, frozen=True):
    """The bins of an input or output of a model, and the reference's rows in them.

    Bins of numbers: missing, below the reference's range, one up to each further edge, above the range. Bins of categories:
    missing, one for each category, all others. Other types: missing and present.
    """

    name: str
    is_output: bool
    kind: str
    """`NUMBER`, `CATEGORY` or `PRESENCE`."""
    bins: tuple[str, ...]
    """Their names."""
    counts: tuple[int, ...] = ()
    """Reference rows by bin."""
    edges: tuple[float, ...] = ()
    """Of numbers: inclusive upper bounds. The first is just below the smallest value, the last is the largest."""
    categories: tuple[Any, ...] = ()
    known: tuple[Any, ...] | None = None
    """Every category of the reference; None if it has too many to tell that another one is unknown."""
    sample: tuple[float, ...] = ()
    """The reference's finite numbers, ascending."""
    position: int = 0
    """Of the column among the inputs."""
    element: int = 0
    """Of a value in a tensor's or a multi-output model's row."""

    @property
    def tolerance(self) -> float:
        """Difference up to which numbers of an output are the same: calls of one row and of many differ in last bits."""
        if not self.is_output or not self.sample:
            return 0.0
        return OUTPUT_TOLERANCE * max(abs(self.sample[0]), abs(self.sample[-1]))

    @property
    def n_reference(self) -> int:
        """Rows of the reference."""
        return sum(self.counts)

    @property
    def outer(self) -> tuple[int, ...]:
        """The positions of bins that are no value or range of the reference."""
        if self.kind == PRESENCE or (self.kind == NUMBER and not self.edges):
            return (0, 1)
        return (0, 1, len(self.bins) - 1) if self.kind == NUMBER else (0, len(self.bins) - 1)

    def bin_names(self, *, shows_values: bool) -> list[str]:
        """Returns the names to show.

        Args:
            shows_values: whether bins are named by the reference's values; else by their position.
        """
        return [
            name if shows_values or position in self.outer else f"bin {position}"
            for position, name in enumerate(self.bins)
        ]


class Counted(NamedTuple):
    """A feature's values in some rows."""

    bins: npt.NDArray[np.int64]
    """Rows by bin."""
    n_unknown: int = 0
    """Rows with a category that the reference does not have."""
    total: float = 0
    """Sum of the finite numbers."""
    n_finite: int = 0


class Binner:
    """Counts values into a feature's bins."""

    def __init__(self, feature: Feature) -> None:
        self._feature = feature
        self._edges = np.array(feature.edges)
        self._positions = {value: 1 + index for index, value in enumerate(feature.categories)}
        self._known = None if feature.known is None else frozenset(feature.known)

    def count(self, values: Values) -> Counted:
        """Returns the counts of values of shape `(n_rows,)`."""
        n_bins = len(self._feature.bins)
        if self._feature.kind == NUMBER:
            numbers = to_numbers(values)
            bins = 1 + np.searchsorted(self._edges, numbers, side="left")
            bins[np.isnan(numbers)] = 0
            finite = numbers[np.isfinite(numbers)]
            return Counted(np.bincount(bins, minlength=n_bins), 0, float(finite.sum()), len(finite))
        if self._feature.kind == PRESENCE:
            n_missing = int(is_missing(values).sum())
            return Counted(np.array([n_missing, len(values) - n_missing]))
        return self.count_categories(Counter(values.tolist()).items())

    def count_categories(self, found: Iterable[tuple[Any, int]]) -> Counted:
        """Returns the counts of categories.

        Args:
            found: values, each with its number of rows.
        """
        n_bins = len(self._feature.bins)
        counts, n_unknown = [0] * n_bins, 0
        for value, n_rows in found:
            position = self._positions.get(value)
            if position is None:
                missing = value is None or value != value  # noqa: PLR0124  # NaN
                position = 0 if missing else n_bins - 1
                if not missing and self._known is not None and value not in self._known:
                    n_unknown += n_rows
            counts[position] += n_rows
        return Counted(np.array(counts), n_unknown)


def to_numbers(values: Values) -> npt.NDArray[np.float64]:
    """Returns values of a column as doubles; missing ones, and texts that are no number, are NaN."""
    if values.dtype.kind in "OU":
        return np.array([_to_number(value) for value in values.tolist()], dtype=np.float64)
    return values.astype(np.float64)


def _to_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def is_missing(values: Values) -> npt.NDArray[np.bool_]:
    """Returns which values of a column of any kind are missing."""
    if values.dtype.kind in "mM":
        return np.isnat(values)
    missing = [value is None or (isinstance(value, float) and value != value) for value in values.tolist()]  # noqa: PLR0124  # NaN
    return np.array(missing, dtype=bool)
