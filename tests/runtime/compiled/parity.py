"""An original and its compiled form, asked the same."""

import pickle
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.base import is_classifier

from serving.runtime import Output
from serving.runtime.compiled.data import Columns, Data
from serving.runtime.compiled.nodes import Predictor, compile_predictor
from serving.runtime.compiled.plan import load_plan, save_plan
from tests.support.soak import scaled

FEW = settings(max_examples=scaled(8, 200), deadline=None)
FEWER = settings(max_examples=scaled(4, 100), deadline=None)
"""Of models that are fitted in several parts; a whole file takes seconds."""

SEEDS = st.integers(0, 2**32 - 1)


def to_data(frame: pd.DataFrame) -> Columns:
    """The same rows as the compiled form gets them."""
    return Columns(tuple(map(str, frame.columns)), [frame[name].to_numpy() for name in frame.columns])


def compiled(model: Any, sample: Data) -> Predictor:
    """The model's compiled form, written to disk and read back."""
    with tempfile.TemporaryDirectory() as folder:
        save_plan(compile_predictor(model, sample), Path(folder) / "plan")
        return load_plan(Path(folder) / "plan")


def ask(model: Any, frame: pd.DataFrame) -> Output:
    """What the model's own methods say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = np.asarray(model.predict(frame))
        if not is_classifier(model):
            return Output(values=predicted)
        return Output(predicted, model.predict_proba(frame) if hasattr(model, "predict_proba") else None)


def assert_same(model: Any, frame: pd.DataFrame, node: Predictor | None = None) -> None:
    """The compiled form says what the model says, of all rows at once and of single rows.

    The model is one that was written and read, as any from a registry: its coefficients are not views of
    larger arrays any more, and of one row in float32 OpenBLAS rounds these in another way.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PassiveAggressive warns of its end when it is read
        model = pickle.loads(pickle.dumps(model))
    node = node or compiled(model, to_data(frame.head(3)))
    for rows in (frame, frame.iloc[[0]], frame.iloc[[-1]]):
        assert_same_output(ask(model, rows), node.output(to_data(rows)))


def assert_same_output(expected: Output, actual: Output) -> None:
    """Labels are the same, numbers to 1e-12 of their scale, dtypes and shapes are the same."""
    for name in ("labels", "probabilities", "values"):
        want, got = getattr(expected, name), getattr(actual, name)
        assert (want is None) == (got is None), name
        if want is None:
            continue
        assert got.dtype == want.dtype, name
        assert got.shape == want.shape, name
        if name == "labels":
            assert got.tolist() == want.tolist()
        else:
            assert difference(want, got) <= 1e-12 * (1 if want.dtype == np.float64 else 1e7)


def difference(want: np.ndarray, got: np.ndarray) -> float:
    """The largest difference, relative to the largest number where that is above 1."""
    assert np.array_equal(np.isfinite(want), np.isfinite(got))
    finite = np.isfinite(want)
    if not finite.any():
        return 0.0
    return float(np.abs(got[finite] - want[finite]).max() / max(1.0, np.abs(want[finite]).max()))


@st.composite
def frames(draw: Any, kinds: tuple[str, ...] = ("double", "float", "mixed", "long")) -> pd.DataFrame:
    """Some dozens of rows of a few numeric columns, as a signature of one or several types gives them."""
    rng = np.random.default_rng(draw(SEEDS))
    n_rows, n_columns = draw(st.integers(30, 80)), draw(st.integers(1, 12))
    scale = draw(st.sampled_from([0.01, 1.0, 30.0]))
    matrix = rng.normal(size=(n_rows, n_columns)) * scale + rng.normal(size=n_columns)
    kind = draw(st.sampled_from(kinds))
    frame = pd.DataFrame(matrix, columns=[f"x{i}" for i in range(n_columns)])
    if kind == "float":
        return frame.astype(np.float32)
    whole = pd.DataFrame(np.round(rng.normal(size=matrix.shape) * 5), columns=frame.columns)
    if kind == "long":
        return whole.astype(np.int64)
    if kind == "mixed":
        frame.iloc[:, 2::4] = whole.iloc[:, 2::4]
        frame.iloc[:, 3::4] = whole.iloc[:, 3::4].clip(0)
        types = [np.float64, np.float32, np.int32, np.bool_]
        return frame.astype({name: types[i % 4] for i, name in enumerate(frame.columns)})
    return frame


LABELS = {
    "integers": [3, -1, 10, 7],
    "text": ["yes", "no", "maybe", "é"],
    "booleans": [True, False],
    "floats": [0.0, 1.0, 2.0, 5.0],
}


@st.composite
def targets(draw: Any, frame: pd.DataFrame, n_classes: int | None = None) -> np.ndarray:
    """Labels of two to four classes that the columns say something of; at least six rows of each."""
    rng = np.random.default_rng(draw(SEEDS))
    kind = draw(st.sampled_from([k for k in LABELS if n_classes is None or len(LABELS[k]) >= n_classes]))
    n_classes = n_classes or draw(st.integers(2, len(LABELS[kind])))
    score = frame.to_numpy(dtype=np.float64) @ rng.normal(size=frame.shape[1])
    score = score + rng.normal(size=len(frame)) * (score.std() + 1e-9) * draw(st.sampled_from([0.1, 1.0]))
    positions = np.argsort(np.argsort(score)) * n_classes // len(frame)
    labels = np.array(
        LABELS[kind][:n_classes], dtype=object if draw(st.booleans()) and kind == "text" else None
    )
    return labels[positions]


@st.composite
def values(draw: Any, frame: pd.DataFrame, n_targets: int = 0, positive: bool = False) -> np.ndarray:
    """Numbers that the columns say something of; positive ones where asked, several columns where asked."""
    rng = np.random.default_rng(draw(SEEDS))
    matrix = frame.to_numpy(dtype=np.float64)
    matrix = (matrix - matrix.mean(axis=0)) / (matrix.std(axis=0) + 1e-9)
    out = matrix @ rng.normal(size=(frame.shape[1], max(n_targets, 1)))
    out = out + rng.normal(size=out.shape)
    out = np.exp(out / 4) if positive else out
    return out if n_targets else out[:, 0]
