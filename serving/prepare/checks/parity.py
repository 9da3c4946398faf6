"""The parity gate: a compiled model serves only if its answers agree with the original's.

Both predict the logged examples, the reference sample, and more than 10,000 generated rows: ordinary ones, further
numbers, missing values, unknown texts, extreme and overflowing numbers. The last estimator also predicts rows exactly
on its split thresholds, and next to them.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.model.prepared import Parity
from serving.model.schema import Inputs, take
from serving.prepare.checks.generated import Group
from serving.runtime import Output, slice_output
from serving.runtime.compiled.data import NotCompiled

MAX_DIFFERENCE = 1e-6
"""Of a probability; of another number, relative to its magnitude if above 1."""

MIN_ROWS = 5_000
"""Generated rows that must be answered."""

MAX_SINGLE_ROWS = 100
"""Rows predicted one by one, of a group that the original refuses."""

Predict = Callable[[Inputs], Output]


class Comparison:
    """Accumulates comparisons of the original with the compiled model.

    Raises (from its methods):
        NotCompiled: the two disagree.
    """

    def __init__(self, n_sample: int = 0) -> None:
        """Starts with nothing compared.

        Args:
            n_sample: the number of real rows to compare.
        """
        self._n_sample = n_sample
        self._rows = self._refused = self._on_thresholds = 0
        self._difference = 0.0

    def parity(self) -> Parity:
        """Returns the result.

        Raises:
            NotCompiled: too few rows were answered.
        """
        if self._rows < MIN_ROWS:
            raise NotCompiled(
                f"parity: the original answered only {self._rows} of the generated rows; log the model with an "
                "input_example of some dozen rows, from which better ones can be generated"
            )
        return Parity(self._rows, self._n_sample, self._refused, self._on_thresholds, self._difference)

    def group(self, group: Group, original: Predict, compiled: Predict) -> None:
        """Compares the answers to a group of rows; row by row if one of the two refuses."""
        expected, got = ask(original, group.inputs), ask(compiled, group.inputs)
        if isinstance(expected, Output) and isinstance(got, Output):
            self._add(group.name, expected, got, group.inputs.n_rows)
            return
        for row in _single_rows(group.inputs):
            expected, got = ask(original, row), ask(compiled, row)
            if isinstance(expected, Output) and isinstance(got, Output):
                self._add(group.name, expected, got, 1)
            elif isinstance(expected, Output) or isinstance(got, Output):
                error = got if isinstance(expected, Output) else expected
                who = "compiled" if isinstance(expected, Output) else "original"
                raise NotCompiled(
                    f"parity: of rows with {group.name}, only the {who} model refuses one "
                    f"({type(error).__name__})"
                )
            else:
                self._refused += 1

    def single_rows(self, group: Group, original: Predict, compiled: Predict) -> None:
        """Compares the compiled model's answers to single rows, for which it has shortcuts, and to all at once.

        They may differ if the original's do, too, as with sums that cancel out.
        """
        together = ask(compiled, group.inputs)
        if not isinstance(together, Output):
            return  # `group` has compared it row by row with the original
        for row, inputs in enumerate(_single_rows(group.inputs)):
            alone = ask(compiled, inputs)
            if not isinstance(alone, Output):
                raise NotCompiled(f"parity: a row with {group.name} is refused only on its own")
            try:
                self._add(group.name, slice_output(together, row, row + 1), alone, 0)
            except NotCompiled:
                own = ask(original, inputs)
                if isinstance(own, Output) and same_output(own, alone):
                    continue
                raise NotCompiled(
                    f"a row with {group.name} gets a different answer alone than among others"
                ) from None

    def thresholds(self, expected: Output, got: Output, n_rows: int) -> None:
        """Compares the answers to rows on split thresholds."""
        self._add("values on split thresholds", expected, got, n_rows)
        self._on_thresholds += n_rows

    def _add(self, name: str, expected: Output, got: Output, n_rows: int) -> None:
        difference = 0.0
        for field in ("probabilities", "values"):
            difference = max(difference, _difference(getattr(expected, field), getattr(got, field), name))
        if not difference <= MAX_DIFFERENCE:
            raise NotCompiled(f"parity: rows with {name} differ by up to {difference:.2g}")
        if not _same_labels(expected.labels, got.labels):
            raise NotCompiled(f"parity: rows with {name} get different labels")
        self._rows += n_rows
        self._difference = max(self._difference, difference)


def same_output(one: Output, other: Output) -> bool:
    """Whether two answers agree up to rounding; objects other than numbers must be equal."""
    for field in ("labels", "probabilities", "values"):
        a, b = getattr(one, field), getattr(other, field)
        if (a is None) != (b is None):
            return False
        if a is None:
            continue
        if a.shape != b.shape:
            return False
        if a.dtype.kind == "f" and b.dtype.kind == "f":
            if not np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True):
                return False
        elif a.tolist() != b.tolist():
            return False
    return True


def ask(predict: Predict, inputs: Inputs) -> Output | Exception:
    """Returns the answer, or the exception raised instead.

    Raises:
        NotCompiled: memory is insufficient.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return predict(inputs)
    except MemoryError:
        raise NotCompiled("parity: there is not enough memory for the comparison") from None
    except Exception as error:  # noqa: BLE001  # an exception is an answer here
        return error


def _single_rows(inputs: Inputs) -> Iterator[Inputs]:
    for row in range(min(inputs.n_rows, MAX_SINGLE_ROWS)):
        yield take(inputs, row, row + 1)


def _difference(expected: npt.NDArray[Any] | None, got: npt.NDArray[Any] | None, name: str) -> float:
    if expected is None and got is None:
        return 0.0
    if expected is None or got is None or expected.shape != got.shape:
        raise NotCompiled(f"parity: rows with {name} get an answer of a different shape")
    expected, got = np.asarray(expected, dtype=np.float64), np.asarray(got, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(expected - got) / np.maximum(1.0, np.abs(expected))
    same = (expected == got) | (np.isnan(expected) & np.isnan(got))
    difference = np.where(same, 0.0, difference)
    return float(difference.max()) if difference.size else 0.0


def _same_labels(expected: npt.NDArray[Any] | None, got: npt.NDArray[Any] | None) -> bool:
    if expected is None or got is None:
        return expected is got
    # By value and type: 1 and True are equal, but differ in JSON.
    return (
        expected.shape == got.shape
        and [type(v) for v in expected.flat[:1].tolist()] == [type(v) for v in got.flat[:1].tolist()]
        and bool((expected == got).all())
    )
