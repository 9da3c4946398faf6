"""Transformers and their compiled forms, asked the same: rows as a frame, and as the columns that a worker has."""

import math
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline

from serving.codecs.casting import replace_none
from serving.model.schema import DTYPES, Column, Form, Inputs, Kind, Schema, Type
from serving.runtime import Output
from serving.runtime.compiled import inputs_to_data
from serving.runtime.compiled.data import Columns, Data, as_matrix
from serving.runtime.compiled.nodes import Predictor, Transformer
from serving.runtime.compiled.plan import load_plan, save_plan
from serving.runtime.compiled.wrappers.composition import Chain, compile_steps
from serving.runtime.native import inputs_to_frame
from tests.support.soak import scaled

FEW = settings(max_examples=scaled(20, 500), deadline=None)
"""So that a whole file takes seconds."""

KINDS = {np.dtype(dtype): kind for kind, dtype in DTYPES.items()}

Table = dict[str, np.ndarray]
"""Columns by name, as `Inputs` has them."""


@dataclass
class Holder(Predictor):
    """A plan holds a predictor; this one holds a transformer."""

    step: Transformer

    def output(self, data: Data) -> Output:
        return Output(values=np.asarray(self.step.transform(data)))


def schema_of(table: Table) -> Schema:
    """The signature of the rows that a model was fitted on."""
    kinds = [KINDS.get(array.dtype, Kind.STRING) for array in table.values()]
    columns = [Column(name, Type(kind), required=False) for name, kind in zip(table, kinds, strict=True)]
    return Schema(tuple(columns), Form.RECORD)


def inputs_of(table: Table) -> Inputs:
    """The rows as a codec hands them over: what is missing among text is NaN."""
    columns = tuple(
        replace_none(array, math.nan) if array.dtype == object and _is_text(array) else array
        for array in table.values()
    )
    return Inputs(columns, len(columns[0]))


def _is_text(array: np.ndarray) -> bool:
    return all(cell is None or isinstance(cell, (str, float)) for cell in array.tolist())


def to_frame(table: Table, schema: Schema | None = None) -> pd.DataFrame:
    """What the native runtime would call the model with."""
    frame = inputs_to_frame(inputs_of(table), schema or schema_of(table))
    assert isinstance(frame, pd.DataFrame)
    return frame


def to_data(table: Table) -> Data:
    """What the compiled runtime would call its first node with."""
    return inputs_to_data(inputs_of(table), schema_of(table))


def rows_of(table: Table, start: int, stop: int) -> Table:
    return {name: array[start:stop] for name, array in table.items()}


def compiled(fitted: list[Any], sample: Data) -> list[Transformer]:
    """The compiled steps, written to disk and read back."""
    steps, _ = compile_steps(fitted, sample)
    with tempfile.TemporaryDirectory() as folder:
        save_plan(Holder(Chain(steps)), Path(folder) / "plan")
        plan = load_plan(Path(folder) / "plan")
    assert isinstance(plan, Holder)
    assert isinstance(plan.step, Chain)
    return plan.step.steps


def assert_same(
    transformers: list[Any],
    train: Table,
    test: Table,
    y: Any = None,
    *,
    scale: float = 1.0,
    may_not_fit: bool = False,
) -> float:
    """The compiled steps return what the fitted ones do, or raise where those raise; all rows and single ones.

    `scale` is the size of the numbers that sums are made of: what cancels out leaves their rounding. With
    `may_not_fit` nothing is claimed where the original cannot even be fitted.

    Returns:
        The largest difference, relative to the number where that is above 1.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            pipeline = make_pipeline(*transformers).fit(to_frame(train), y)
        except (ValueError, TypeError, RuntimeError):
            if may_not_fit:
                return 0.0
            raise
        chain = Chain(compiled([step for _, step in pipeline.steps], to_data(train)))
        largest = 0.0
        n_rows = len(next(iter(test.values())))
        for start, stop in [(0, n_rows), *((row, row + 1) for row in range(min(n_rows, 8)))]:
            part = rows_of(test, start, stop)
            try:
                expected = pipeline.transform(to_frame(part, schema_of(train)))
            except (ValueError, TypeError):
                expected = None
            try:
                got = chain.transform(to_data(part))
            except (ValueError, TypeError):
                got = None
            assert (expected is None) == (got is None), "only one of the two raises"
            if expected is not None and got is not None:
                largest = max(largest, difference(expected, got, scale))
    return largest


def difference(expected: Any, got: Data, scale: float = 1.0) -> float:
    """Asserts the same shape and dtype, the same text, and numbers to 1e-12; returns the largest difference."""
    if hasattr(expected, "toarray"):
        expected = expected.toarray()
    if isinstance(expected, pd.DataFrame):
        assert isinstance(got, Columns)
        assert list(got.names) == list(expected.columns)
        expected = expected.to_numpy()
    if expected.dtype == object:
        return _difference_of_objects(expected, got)
    matrix = as_matrix(got)
    assert matrix.shape == expected.shape
    if not isinstance(got, Columns):
        assert matrix.dtype == expected.dtype
    if expected.dtype.kind != "f":
        assert np.array_equal(matrix, expected)
        return 0.0
    assert np.array_equal(np.isnan(matrix), np.isnan(expected))
    assert np.array_equal(np.isinf(matrix), np.isinf(expected))
    finite = np.isfinite(expected)
    want, have = expected[finite].astype(np.float64), matrix[finite].astype(np.float64)
    gap = np.abs(want - have) / np.maximum(scale, np.abs(want))
    largest = float(gap.max()) if gap.size else 0.0
    assert largest <= (1e-12 if expected.dtype == np.float64 else 3e-7)
    return largest


def _difference_of_objects(expected: np.ndarray, got: Data) -> float:
    columns = got.arrays if isinstance(got, Columns) else list(got.T)
    assert len(columns) == expected.shape[1]
    for want, have in zip(expected.T, columns, strict=True):
        for a, b in zip(want.tolist(), have.tolist(), strict=True):
            if isinstance(a, float) and np.isnan(a):
                assert b != b  # noqa: PLR0124  # NaN, and not None
            else:
                assert a == b
    return 0.0


WORDS = ["a", "b", "c", "dd", "Übergröße", "", " a", "A", "nan", "None", "1", "missing_value"]


@st.composite
def columns(
    draw: Any,
    kinds: tuple[str, ...],
    n_train: int = 40,
    n_test: int = 12,
    missing: bool = True,
    extreme: bool = True,
    infinite: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """One column: what a transformer is fitted on, and what it then gets, with the unforeseen in it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(kinds))
    has_missing, has_more = missing and draw(st.booleans()), draw(st.booleans())
    if kind == "text":
        n_words = draw(st.integers(1, 6))
        train = rng.choice(np.array(WORDS, dtype=object), n_words)[
            rng.integers(0, n_words, n_train) ** 2 // n_words
        ]
        test = np.array(WORDS if has_more else train.tolist(), dtype=object)
        test = test[rng.integers(0, len(test), n_test)]
        if has_missing:
            train[rng.random(n_train) < 0.2] = None
        if missing and draw(st.booleans()):
            test[rng.random(n_test) < 0.3] = draw(st.sampled_from([None, float("nan")]))
        return train, test
    if kind == "boolean":
        train, test = rng.random(n_train) < 0.4, rng.random(n_test) < 0.5
        train[:2] = True, False
        if draw(st.booleans()) and missing:
            test = test.astype(object)
            test[rng.random(n_test) < 0.3] = None
        return train, test
    dtype = {"double": np.float64, "float": np.float32, "long": np.int64, "integer": np.int32}[kind]
    spread = draw(st.sampled_from([1.0, 100.0, 1e-3])) if dtype in (np.float64, np.float32) else 3.0
    n_values = draw(st.sampled_from([2, 5, 100]))
    pool = (rng.normal(size=n_values) * spread).astype(dtype)
    train = pool[rng.integers(0, n_values, n_train)]
    test = pool[rng.integers(0, n_values, n_test)]
    if has_more:
        test = (test + rng.normal(size=n_test) * spread).astype(dtype)
    if extreme and draw(st.booleans()):
        big = (
            [1e30, -1e30, 1e-30, 0.0, -0.0] if dtype in (np.float64, np.float32) else [0, 2**31 - 1, -(2**31)]
        )
        test[: len(big)] = np.array(big).astype(dtype)
    if dtype in (np.float64, np.float32):
        if has_missing:
            train[rng.random(n_train) < 0.2] = np.nan
        if missing and draw(st.booleans()):
            test[rng.random(n_test) < 0.3] = np.nan
        if infinite and draw(st.integers(0, 9)) == 0:
            test[-1] = np.inf
    return train, test


@st.composite
def tables(
    draw: Any, kinds: tuple[str, ...] = ("double", "float", "long", "integer"), **options: Any
) -> tuple[Table, Table]:
    """A few columns of the kinds: what is fitted on, and what is then asked."""
    n_columns = draw(st.integers(1, 4))
    drawn = [draw(columns(kinds, **options)) for _ in range(n_columns)]
    train = {f"x{position}": column[0] for position, column in enumerate(drawn)}
    test = {f"x{position}": column[1] for position, column in enumerate(drawn)}
    return train, test
