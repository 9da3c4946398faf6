import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.edges import (
    assert_identical,
    edge_rows,
    features,
    target,
    to_frame,
    tree_thresholds,
)
from tests.runtime.compiled.parity import FEW, SEEDS, ask, compiled, to_data

TREES = [DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor]
FORESTS = [RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor]


def fitted(rng, kind, matrix):
    """One with settings from the dice."""
    settings = {
        "max_depth": [None, 1, 4][rng.integers(3)],
        "max_leaf_nodes": [None, 5][rng.integers(2)],
        "min_samples_leaf": int(rng.integers(1, 4)),
        "random_state": int(rng.integers(1000)),
    }
    if kind in FORESTS:
        settings |= {"n_estimators": int(rng.integers(1, 30)), "n_jobs": 1}
    if "Classifier" in kind.__name__ and rng.random() < 0.3:
        settings["class_weight"] = "balanced"
    model = kind(**settings)
    return model.fit(to_frame(matrix), target(rng, matrix, model))


def inner_trees(model):
    return [one.tree_ for one in getattr(model, "estimators_", [model])]


@FEW
@given(SEEDS, st.sampled_from(TREES + FORESTS), st.booleans())
def test_the_same_bits_at_the_thresholds_and_beside_them(seed, kind, missing):
    rng = np.random.default_rng(seed)
    missing = missing and kind not in (ExtraTreeClassifier, ExtraTreeRegressor)
    matrix = features(rng, missing=missing and rng.random() < 0.7)
    model = fitted(rng, kind, matrix)
    rows = edge_rows(rng, matrix, tree_thresholds(inner_trees(model), matrix.shape[1]), missing=missing)
    assert_identical(model, to_frame(rows))
    assert_identical(model, to_frame(rows.astype(np.float32)))


@pytest.mark.parametrize("kind", TREES + FORESTS)
def test_integers_booleans_and_mixed_columns(kind):
    rng = np.random.default_rng(0)
    matrix = rng.integers(-50, 50, size=(200, 4))
    model = fitted(rng, kind, matrix)
    frame = to_frame(matrix)
    frame["x1"] = frame["x1"] > 0
    frame["x2"] = frame["x2"].astype(np.float32) / 3
    frame["x3"] = frame["x3"].astype(np.int32)
    assert_identical(model, frame)
    frame["x3"] = frame["x0"] * (2**53 + 1)
    assert_identical(model, frame[["x0", "x1", "x2", "x3"]])
    frame = to_frame(matrix * (2**53 + 1))
    assert_identical(model, frame)
    assert_identical(model, frame.assign(x1=frame["x1"] > 0))


@pytest.mark.parametrize("kind", TREES + FORESTS)
@pytest.mark.parametrize("odd", [np.inf, -np.inf, 1e39, -1e308, np.nan])
def test_what_the_original_refuses_is_refused(kind, odd):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(100, 3))
    model = (
        fitted(rng, kind, matrix).set_params(splitter="best") if kind in TREES else fitted(rng, kind, matrix)
    )
    rows = to_frame(matrix[:4].copy())
    rows.iloc[2, 1] = odd
    node = compiled(model, to_data(rows))
    try:
        ask(model, rows)
    except ValueError:
        with pytest.raises(ValueError, match="Input contains"):
            node.output(to_data(rows))
    else:
        assert np.isnan(odd)
        assert_identical(model, rows, node)


def test_an_extra_tree_with_the_best_splitter_refuses_missing_values():
    matrix = np.random.default_rng(1).normal(size=(100, 3))
    model = ExtraTreeRegressor(splitter="best", random_state=0).fit(matrix, matrix[:, 0])
    node = compiled(model, matrix[:2])
    with pytest.raises(ValueError, match="NaN"):
        node.output(np.full((1, 3), np.nan))


def test_one_class_and_one_leaf():
    matrix = np.random.default_rng(1).normal(size=(20, 2))
    assert_identical(DecisionTreeClassifier().fit(to_frame(matrix), ["a"] * 20), to_frame(matrix))
    assert_identical(RandomForestRegressor(3).fit(to_frame(matrix), np.ones(20)), to_frame(matrix))


def test_behind_a_scaler():
    rng = np.random.default_rng(2)
    frame = to_frame(rng.normal(size=(300, 5)))
    model = make_pipeline(StandardScaler(), RandomForestClassifier(50, random_state=0))
    assert_identical(model.fit(frame, frame["x0"] * frame["x1"] > 0), frame)


def test_other_columns_are_not_compiled():
    matrix = np.random.default_rng(1).normal(size=(20, 2))
    model = DecisionTreeRegressor().fit(matrix, matrix[:, 0])
    with pytest.raises(NotCompiled, match="columns"):
        compile_predictor(model, matrix[:, :1])
