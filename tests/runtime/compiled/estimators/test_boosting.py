import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.edges import (
    assert_identical,
    edge_rows,
    features,
    fit_or_reject,
    target,
    to_frame,
    tree_thresholds,
)
from tests.runtime.compiled.parity import FEW, SEEDS, ask, compiled, to_data

GRADIENT = [GradientBoostingClassifier, GradientBoostingRegressor]
ADABOOST = [AdaBoostClassifier, AdaBoostRegressor]


def gradient(rng, kind, matrix):
    """One with settings from the dice."""
    settings = {
        "n_estimators": int(rng.integers(1, 20)),
        "max_depth": int(rng.integers(1, 5)),
        "learning_rate": float(rng.choice([0.1, 0.05, 1.0, 0.37])),
        "subsample": float(rng.choice([1.0, 0.7])),
        "init": [None, "zero"][rng.integers(2)],
        "n_iter_no_change": [None, 3][rng.integers(2)],
        "random_state": 0,
    }
    if kind is GradientBoostingRegressor:
        settings["loss"] = str(rng.choice(["squared_error", "absolute_error", "huber", "quantile"]))
    model = kind(**settings)
    labels = target(rng, matrix, model)
    if kind is GradientBoostingClassifier and len(np.unique(labels)) == 2 and rng.random() < 0.5:
        model.set_params(loss="exponential")
    return fit_or_reject(model, to_frame(matrix), labels)


def adaboost(rng, kind, matrix):
    """One over trees, or over forests."""
    depth = int(rng.integers(1, 5))
    trees, forests = {
        AdaBoostClassifier: (DecisionTreeClassifier, RandomForestClassifier),
        AdaBoostRegressor: (DecisionTreeRegressor, RandomForestRegressor),
    }[kind]
    forest = forests(n_estimators=3, max_depth=depth, n_jobs=1)
    base = trees(max_depth=depth) if rng.random() < 0.75 else forest
    rate = float(rng.choice([0.1, 1.0, 1.7]))
    model = kind(base, n_estimators=int(rng.integers(1, 20)), learning_rate=rate, random_state=0)
    if kind is AdaBoostRegressor:
        model.set_params(loss=str(rng.choice(["linear", "square", "exponential"])))
    return fit_or_reject(model, to_frame(matrix), target(rng, matrix, model))


def decision(model, rows):
    """What the model's own function says; scikit-learn warns of the sum of 1e38 and -1e38."""
    with np.errstate(over="ignore", invalid="ignore"):
        return model.decision_function(rows)


def inner_trees(model):
    members = np.ravel(model.estimators_).tolist()
    return [tree.tree_ for member in members for tree in getattr(member, "estimators_", [member])]


@FEW
@given(SEEDS, st.sampled_from(GRADIENT))
def test_gradient_boosting_is_the_same_to_the_last_bit(seed, kind):
    rng = np.random.default_rng(seed)
    matrix = features(rng)
    model = gradient(rng, kind, matrix)
    rows = to_frame(edge_rows(rng, matrix, tree_thresholds(inner_trees(model), matrix.shape[1])))
    node = compiled(model, to_data(rows))
    assert_identical(model, rows, node)
    if kind is GradientBoostingClassifier:
        assert np.array_equal(node.decision(to_data(rows)), decision(model, rows))


@FEW
@given(SEEDS, st.sampled_from(ADABOOST))
def test_adaboost_is_the_same_to_the_last_bit(seed, kind):
    rng = np.random.default_rng(seed)
    matrix = features(rng)
    model = adaboost(rng, kind, matrix)
    rows = to_frame(edge_rows(rng, matrix, tree_thresholds(inner_trees(model), matrix.shape[1])))
    node = compiled(model, to_data(rows))
    assert_identical(model, rows, node)
    if kind is AdaBoostClassifier:
        assert np.array_equal(node.decision(to_data(rows)), decision(model, rows))


@pytest.mark.parametrize("kind", [GradientBoostingClassifier, AdaBoostClassifier])
def test_many_classes(kind):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(400, 4))
    labels = (matrix[:, 0] * 4).round().clip(-6, 6) + (matrix[:, 1] > 0)
    assert_identical(kind(n_estimators=20, random_state=0).fit(to_frame(matrix), labels), to_frame(matrix))


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("kind", GRADIENT + ADABOOST)
def test_what_the_original_refuses_is_refused(kind, odd):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 2))
    model = kind(n_estimators=3, random_state=0)
    model.fit(to_frame(matrix), target(rng, matrix, model))
    rows = to_frame(matrix[:3].copy())
    rows.iloc[1, 1] = odd
    node = compiled(model, to_data(rows))
    with pytest.raises(ValueError, match="Input"):
        ask(model, rows)
    with pytest.raises(ValueError, match="Input"):
        node.output(to_data(rows))


def test_adaboost_over_linear_models():
    rng = np.random.default_rng(0)
    frame = to_frame(rng.normal(size=(80, 3)))
    model = AdaBoostRegressor(LinearRegression(), n_estimators=7, random_state=0)
    model.fit(frame, frame.sum(axis=1) ** 2)
    node = compiled(model, to_data(frame))
    assert np.allclose(node.output(to_data(frame)).values, model.predict(frame), rtol=0, atol=1e-12)


def test_gradient_boosting_from_another_estimator_is_not_compiled():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 2))
    model = GradientBoostingRegressor(init=LinearRegression(), n_estimators=2).fit(matrix, matrix[:, 0])
    with pytest.raises(NotCompiled, match="init"):
        compile_predictor(model, matrix)
