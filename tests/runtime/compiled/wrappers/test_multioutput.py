"""Models of several targets: an estimator for each, chains of them, and forests."""

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from serving.runtime.native import adapter_of
from tests.runtime.compiled.edges import assert_same_bits, edge_rows, features, to_frame
from tests.runtime.compiled.parity import FEW, SEEDS, assert_same, compiled, frames, targets, to_data, values


def assert_answers(model: Any, frame: pd.DataFrame) -> None:
    """The same values or labels; of several targets there are no probabilities."""
    model = pickle.loads(pickle.dumps(model))
    node = compiled(model, to_data(frame.head(3)))
    for rows in (frame, frame.iloc[[0]], frame.iloc[[-1]]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # very large numbers add up to infinity
            expected = adapter_of(model).predict(rows, {})
        assert_same_bits(expected, node.output(to_data(rows)))


@FEW
@given(st.data())
def test_regressors_side_by_side_and_in_a_chain(data):
    frame = data.draw(frames(("double", "long", "mixed")))
    y = data.draw(values(frame, n_targets=3))
    assert_same(MultiOutputRegressor(make_pipeline(StandardScaler(), Ridge())).fit(frame, y), frame)
    order = data.draw(st.sampled_from([None, [2, 0, 1]]))
    assert_same(RegressorChain(Ridge(), order=order).fit(frame, y), frame)


@FEW
@given(st.data())
def test_classifiers_side_by_side(data):
    frame = data.draw(frames(("double", "long", "mixed")))
    both = [data.draw(targets(frame, n_classes=n_classes)) for n_classes in (2, 3)]
    y = np.column_stack([labels.astype(str) for labels in both])
    model = MultiOutputClassifier(make_pipeline(StandardScaler(), LogisticRegression())).fit(frame, y)
    assert_answers(model, frame)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
@FEW
@given(data=st.data())
def test_chains_of_classifiers(method, data):
    frame = data.draw(frames(("double", "long")))
    y = np.column_stack(
        [values_of > np.median(values_of) for values_of in data.draw(values(frame, n_targets=3)).T]
    )
    model = ClassifierChain(
        make_pipeline(StandardScaler(), LogisticRegression()), order=[1, 2, 0], chain_method=method
    )
    assert_answers(model.fit(frame, y * 1), frame)


@FEW
@given(
    SEEDS,
    st.sampled_from(
        [RandomForestRegressor, DecisionTreeRegressor, RandomForestClassifier, ExtraTreesClassifier]
    ),
)
def test_forests_of_several_targets_are_the_same_to_the_last_bit(seed, kind):
    rng = np.random.default_rng(seed)
    matrix = features(rng)
    model = kind(random_state=0, max_depth=int(rng.integers(1, 6)))
    if hasattr(model, "n_estimators"):
        model.set_params(n_estimators=int(rng.integers(1, 12)))
    score = matrix @ rng.normal(size=(matrix.shape[1], 2)) + rng.normal(size=(len(matrix), 2))
    if "Classifier" in kind.__name__:
        ranks = np.argsort(np.argsort(score, axis=0), axis=0)
        score = np.column_stack([ranks[:, 0] * 2 // len(ranks), ranks[:, 1] * 4 // len(ranks)]) * 3
        if rng.random() < 0.5:
            score = np.array(["no", "yes", "maybe", "é"] * 3)[score]
    model.fit(to_frame(matrix), score)
    assert_answers(model, to_frame(edge_rows(rng, matrix, [np.zeros(0)] * matrix.shape[1])))


def test_a_tree_of_several_targets():
    rng = np.random.default_rng(0)
    frame = to_frame(rng.normal(size=(80, 3)))
    y = np.column_stack([frame["x0"] > 0, frame["x1"] > 0.5])
    assert_answers(DecisionTreeClassifier(max_depth=3, random_state=0).fit(frame, y), frame)
    assert_same(MultiOutputRegressor(LinearRegression()).fit(frame, y * 1.0), frame)
