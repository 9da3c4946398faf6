import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.edges import (
    assert_identical,
    edge_rows,
    features,
    fit_or_reject,
    target,
    to_frame,
)
from tests.runtime.compiled.parity import FEW, SEEDS, compiled, to_data

KINDS = [HistGradientBoostingClassifier, HistGradientBoostingRegressor]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other cost more than these models."""
    with threadpool_limits(1):
        yield


WORDS = np.array(["red", "green", "blue", "ü", "", "a b", "red ", "Red", "1", "x", "y", "z"], dtype=object)


def fitted(rng, kind, frame, matrix, **more):
    """One with settings from the dice."""
    settings = {
        "max_iter": int(rng.integers(1, 20)),
        "max_leaf_nodes": [None, 4, 15][rng.integers(3)],
        "min_samples_leaf": int(rng.integers(1, 5)),
        "learning_rate": float(rng.choice([0.1, 1.0, 0.37])),
        "max_bins": int(rng.choice([5, 20, 255])),
        "early_stopping": bool(rng.integers(2)),
        "random_state": 0,
    }
    if kind is HistGradientBoostingRegressor:
        losses = ["squared_error", "absolute_error", "gamma", "poisson", "quantile"]
        settings |= {"loss": str(rng.choice(losses)), "quantile": 0.7}
    model = kind(**settings, **more)
    if more:
        model.set_params(max_bins=255)  # no fewer than categories
    return fit_or_reject(model, frame, target(rng, matrix, model))


def thresholds(model, n_features):
    nodes = np.concatenate([one.nodes for iteration in model._predictors for one in iteration])
    nodes = nodes[nodes["is_leaf"] == 0]
    return [nodes["num_threshold"][nodes["feature_idx"] == column] for column in range(n_features)]


@FEW
@given(SEEDS, st.sampled_from(KINDS), st.booleans())
def test_numbers_at_the_thresholds_and_beside_them(seed, kind, missing):
    rng = np.random.default_rng(seed)
    matrix = features(rng, missing=missing)
    model = fitted(rng, kind, to_frame(matrix), matrix)
    rows = edge_rows(rng, matrix, thresholds(model, matrix.shape[1]), missing=True)
    rows[0], rows[1] = np.inf, -np.inf
    node = compiled(model, to_data(to_frame(rows)))
    assert_identical(model, to_frame(rows), node)
    if kind is HistGradientBoostingClassifier:
        assert np.array_equal(node.decision(to_data(to_frame(rows))), model.decision_function(to_frame(rows)))


@FEW
@given(SEEDS, st.sampled_from(KINDS))
def test_categories_known_unknown_and_missing(seed, kind):
    rng = np.random.default_rng(seed)
    matrix = features(rng, missing=True)
    n_words, n_codes = int(rng.integers(2, len(WORDS))), int(rng.integers(2, 30))
    frame = to_frame(matrix)
    words = rng.integers(0, n_words, size=len(frame))
    codes = rng.integers(-3, n_codes, size=len(frame))

    def with_categories(words, codes, gone):
        text = pd.Series(np.where(gone, None, WORDS[words]), dtype="str")
        more = frame.iloc[: len(words)].reset_index(drop=True)
        return pd.concat([more.assign(word=text), pd.Series(codes * 1.0, name="code").mask(gone)], axis=1)

    gone = rng.random(len(frame)) < 0.1 * rng.integers(2)
    train = with_categories(words, codes, gone)
    train = train[rng.permutation(train.columns)]
    categorical = ["word", "code"] if rng.random() < 0.8 else ["word"]
    score = np.column_stack([matrix, words % 3 * 2.0, codes % 2 * 5.0])
    model = fitted(rng, kind, train, score, categorical_features=categorical)
    n = min(len(frame), 60)
    rows = with_categories(
        rng.integers(0, len(WORDS), size=n), rng.integers(-9, n_codes + 9, size=n), rng.random(n) < 0.2
    )[train.columns]
    assert_identical(model, rows)


def test_categories_by_dtype():
    rng = np.random.default_rng(0)
    text = pd.Series(rng.choice(WORDS[:4], size=300), dtype="category")
    frame = pd.DataFrame({"n": rng.normal(size=300), "c": text})
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=5)
    model.fit(frame, (frame["n"] > 0) ^ (text == "blue"))
    assert_identical(model, frame.assign(c=text.astype("str")))


def test_columns_of_categories_only():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(WORDS, size=300), "b": rng.choice(WORDS, size=300)}).astype("str")
    model = HistGradientBoostingClassifier(categorical_features=[0, 1], max_iter=5)
    assert_identical(model.fit(frame, frame["a"] < frame["b"]), frame)


def test_a_matrix_with_categories():
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.normal(size=300), rng.integers(0, 9, size=300), rng.normal(size=300)])
    model = HistGradientBoostingRegressor(categorical_features=[1], max_iter=9)
    model.fit(matrix, matrix[:, 0] + (matrix[:, 1] % 2))
    node = compiled(model, matrix[:2])
    matrix[::3, 1] = 77
    assert np.array_equal(node.output(matrix).values, model.predict(matrix))


@pytest.mark.parametrize("n_classes", [3, 9])
def test_many_classes(n_classes):
    rng = np.random.default_rng(0)
    frame = to_frame(rng.normal(size=(500, 4)))
    labels = (frame["x0"].rank() * n_classes / 501).astype(int)
    model = HistGradientBoostingClassifier(max_iter=6).fit(frame, labels)
    assert_identical(model, frame)


def test_integers_and_booleans():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"i": rng.integers(0, 99, size=200), "b": rng.random(200) < 0.5})
    model = HistGradientBoostingRegressor(max_iter=5).fit(frame, frame["i"] * frame["b"])
    assert_identical(model, frame)


def test_an_unfamiliar_link_is_not_compiled():
    from sklearn._loss.loss import HalfBinomialLoss

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(100, 2))
    model = HistGradientBoostingRegressor(max_iter=2).fit(matrix, matrix[:, 0])
    model._loss = HalfBinomialLoss()
    with pytest.raises(NotCompiled, match="LogitLink"):
        compile_predictor(model, matrix)
