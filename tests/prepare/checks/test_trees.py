"""`serving.prepare.checks.trees`: no tree leads out of its arrays."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.neighbors import KernelDensity
from sklearn.tree import DecisionTreeClassifier

from serving.errors import ModelRefused
from serving.prepare.checks.contents import check_contents
from serving.runtime.trusted import Trust

X = np.random.default_rng(0).random((200, 4))
Y = X[:, 0] > X[:, 1]

MODELS = [
    DecisionTreeClassifier(),
    DecisionTreeClassifier(max_leaf_nodes=5),
    DecisionTreeClassifier(min_samples_leaf=200),
    RandomForestClassifier(5),
    ExtraTreesRegressor(5),
    GradientBoostingClassifier(n_estimators=5),
    IsolationForest(n_estimators=5, max_features=2, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, categorical_features=[3]),
    BaggingClassifier(max_features=2, n_estimators=5),
    AdaBoostClassifier(n_estimators=5),
]


def fitted(model: Any) -> Any:
    rows = X.copy()
    rows[:, 3] = np.floor(rows[:, 3] * 9)
    return model.fit(rows, Y)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_what_the_library_fits_is_taken(model: Any):
    check_contents(fitted(model), Trust())


def test_what_has_no_trees_is_taken():
    check_contents(RandomForestClassifier(5), Trust())
    check_contents(KernelDensity().fit(X), Trust())


def damaged_tree(change: Callable[[Any], None]) -> Any:
    forest = fitted(RandomForestClassifier(3, random_state=0))
    tree = forest.estimators_[1].tree_
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    change(nodes)
    tree.__setstate__(state | {"nodes": nodes})
    return forest


def set_first(field: str, value: int) -> Callable[[Any], None]:
    def change(nodes: Any) -> None:
        nodes[field][0] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_first("left_child", 10**9),
        set_first("right_child", -7),
        set_first("left_child", 0),
        set_first("right_child", -1),
        set_first("feature", 4),
        set_first("feature", -2),
    ],
)
def test_a_tree_that_leads_elsewhere_is_refused(change: Callable[[Any], None]):
    with pytest.raises(ModelRefused, match="missing children or features"):
        check_contents(damaged_tree(change), Trust())


@pytest.mark.parametrize(
    ("field", "value"),
    [("left", 2**31), ("right", 0), ("feature_idx", 4), ("feature_idx", -1), ("bitset_idx", 99)],
)
def test_a_histogram_tree_that_leads_elsewhere_is_refused(field: str, value: int):
    model = fitted(HistGradientBoostingClassifier(max_iter=3, categorical_features=[0, 1, 2, 3]))
    model._predictors[1][0].nodes[field][0] = value
    with pytest.raises(ModelRefused):
        check_contents(model, Trust())


@pytest.mark.parametrize("model", [RandomForestClassifier(2), GradientBoostingClassifier(n_estimators=2)])
def test_a_forest_of_fewer_columns_than_its_trees_is_refused(model: Any):
    model = fitted(model)
    model.n_features_in_ = 2
    with pytest.raises(ModelRefused):
        check_contents(model, Trust())


def test_a_large_forest_takes_no_time():
    forest = fitted(RandomForestClassifier(300, random_state=0))
    started = time.process_time()
    check_contents(forest, Trust())
    assert time.process_time() - started < 2
