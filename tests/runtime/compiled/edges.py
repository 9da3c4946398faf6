"""Rows at which a tree might go the wrong way, and the same answer to the last bit."""

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import reject
from sklearn.base import is_classifier

from serving.runtime import Output
from serving.runtime.compiled.nodes import Predictor
from tests.runtime.compiled.parity import ask, compiled, to_data

ODD = np.array([0.0, -0.0, 5e-324, -5e-324, 1e-45, -1e-45, 1e-36, -1e-36, 1e-35, 1.0 + 1e-9, 1e38, -1e38])
"""Zeros, numbers below the normal ones of float64 and float32, LightGBM's zero, and very large ones."""


def edge_rows(
    rng: np.random.Generator, matrix: np.ndarray, thresholds: list[np.ndarray], *, missing: bool = False
) -> np.ndarray:
    """Rows made of what decides: thresholds (one array for each column), their neighbours, odd numbers."""
    rows = matrix[rng.integers(len(matrix), size=60)].astype(np.float64)
    for column, found in enumerate(thresholds):
        own = np.asarray(found, dtype=np.float64)
        with np.errstate(over="ignore"):
            near = own.astype(np.float32)
        candidates = np.concatenate(
            [
                own,
                np.nextafter(own, np.inf),
                np.nextafter(own, -np.inf),
                near,
                np.nextafter(near, np.float32(np.inf)),
                np.nextafter(near, np.float32(-np.inf)),
                ODD,
            ]
        )
        with np.errstate(over="ignore"):
            # A threshold is infinite where only missing values go to the other side.
            candidates = candidates[np.isfinite(candidates.astype(np.float32))]
        chosen = rng.random(len(rows)) < 0.7
        rows[chosen, column] = rng.choice(candidates, size=int(chosen.sum()))
    if missing:
        rows[rng.random(rows.shape) < 0.15] = np.nan
    return rows


def tree_thresholds(trees: list[Any], n_features: int) -> list[np.ndarray]:
    """What scikit-learn's trees compare each column with."""
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    return [threshold[feature == column] for column in range(n_features)]


def to_frame(matrix: np.ndarray) -> pd.DataFrame:
    """Columns with names."""
    return pd.DataFrame(matrix, columns=[f"x{i}" for i in range(matrix.shape[1])])


def assert_identical(model: Any, rows: pd.DataFrame, node: Predictor | None = None) -> None:
    """The compiled form, read back from disk, says the same of all rows at once and of single rows."""
    node = node or compiled(model, to_data(rows.head(3)))
    assert_same_bits(ask(model, rows), node.output(to_data(rows)))
    for position in range(0, len(rows), max(1, len(rows) // 5)):
        one = rows.iloc[[position]]
        assert_same_bits(ask(model, one), node.output(to_data(one)))


def assert_same_bits(expected: Output, actual: Output) -> None:
    """Shapes, dtypes and all values are the same."""
    for name in ("labels", "probabilities", "values"):
        want, got = getattr(expected, name), getattr(actual, name)
        assert (want is None) == (got is None), name
        if want is not None:
            # Text may be held in fewer characters.
            assert got.dtype == want.dtype or got.dtype.kind == want.dtype.kind == "U", name
            assert got.shape == want.shape, name
            assert np.array_equal(got, want, equal_nan=want.dtype.kind == "f"), name


def target(rng: np.random.Generator, matrix: np.ndarray, model: Any) -> np.ndarray:
    """Numbers for a regressor; two to four labels, of text or numbers, for a classifier."""
    score = np.nan_to_num(matrix) @ rng.normal(size=matrix.shape[1]) + rng.normal(size=len(matrix))
    if not is_classifier(model):
        return np.exp(np.clip(score, -5, 5)) + 0.1
    n_classes = int(rng.integers(2, 5))
    labels = np.array(["yes", "no", "maybe", "é"] if rng.random() < 0.5 else [3, -1, 10, 7])[:n_classes]
    return labels[np.argsort(np.argsort(score)) * n_classes // len(score)]


def fit_or_reject(model: Any, frame: pd.DataFrame, y: np.ndarray) -> Any:
    """The fitted model; a case in which the original itself cannot be fitted does not count."""
    try:
        return model.fit(frame, y)
    except ValueError:
        reject()


def features(rng: np.random.Generator, *, missing: bool = False) -> np.ndarray:
    """Some dozens of rows; rounded numbers, so that values meet thresholds, or not."""
    matrix = rng.normal(size=(int(rng.integers(30, 120)), int(rng.integers(1, 6))))
    matrix *= 10.0 ** rng.integers(-3, 4, size=matrix.shape[1])
    if rng.random() < 0.5:
        matrix = matrix.round(1)
    if missing:
        matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return matrix
