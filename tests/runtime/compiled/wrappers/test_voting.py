import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.parity import (
    FEWER,
    assert_same,
    compiled,
    difference,
    frames,
    targets,
    to_data,
    values,
)

WEIGHTS = st.none() | st.lists(st.integers(1, 3) | st.floats(0.1, 2), min_size=3, max_size=3)


def classifiers(last):
    chain = make_pipeline("passthrough", LogisticRegression(C=0.01))
    return [("logistic", LogisticRegression()), ("bayes", GaussianNB()), ("last", last or chain)]


def regressors():
    return [("linear", LinearRegression()), ("ridge", Ridge(10.0)), ("lasso", Lasso(0.1))]


def fit(model, frame, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frame, y)


@FEWER
@given(st.data())
def test_soft_votes(data):
    frame = data.draw(frames())
    model = VotingClassifier(classifiers(None), voting="soft", weights=data.draw(WEIGHTS))
    assert_same(fit(model, frame, data.draw(targets(frame))), frame)


@FEWER
@given(st.data())
def test_hard_votes(data):
    frame = data.draw(frames())
    model = VotingClassifier(classifiers(RidgeClassifier()), weights=data.draw(WEIGHTS))
    assert_same(fit(model, frame, data.draw(targets(frame))), frame)


def test_level_hard_votes_go_to_the_lowest_class():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 3.0, 0.0, 1.0]})
    model = VotingClassifier([("one", LogisticRegression()), ("other", LogisticRegression())])
    model.fit(frame, ["x", "x", "y", "y"])
    model.estimators_[0].coef_ = -model.estimators_[0].coef_
    model.estimators_[0].intercept_ = -model.estimators_[0].intercept_
    assert set(model.predict(frame)) == {"x"}
    assert_same(model, frame)


@FEWER
@given(st.data())
def test_dropped_parts_have_no_weight(data):
    frame = data.draw(frames())
    parts = [("gone", "drop"), *classifiers(None)[:2]]
    model = VotingClassifier(parts, voting="soft", weights=[9, 1, 2])
    assert_same(fit(model, frame, data.draw(targets(frame))), frame)


@FEWER
@given(st.data())
def test_mean_of_regressors(data):
    frame = data.draw(frames())
    model = VotingRegressor(regressors(), weights=data.draw(WEIGHTS))
    assert_same(fit(model, frame, data.draw(values(frame))), frame)


def test_the_mean_of_many_regressors_adds_in_the_same_order():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 3)), columns=list("abc"))
    model = VotingRegressor([(f"ridge{i}", Ridge(10.0**i)) for i in range(-8, 9)])
    assert_same(fit(model, frame, rng.normal(size=40)), frame)


@FEWER
@given(st.data())
def test_stacked_classifiers(data):
    frame = data.draw(frames())
    method = data.draw(st.sampled_from(["auto", "predict"]))
    model = StackingClassifier(
        classifiers(LinearSVC(max_iter=50)), cv=2, stack_method=method, passthrough=data.draw(st.booleans())
    )
    fit(model, frame, data.draw(targets(frame)))
    assert_same(model, frame)
    rows = to_data(frame)
    assert difference(model.decision_function(frame), compiled(model, rows).decision(rows)) <= 1e-12


@FEWER
@given(st.data())
def test_stacked_regressors(data):
    frame = data.draw(frames())
    model = StackingRegressor(regressors(), cv=2, passthrough=data.draw(st.booleans()))
    assert_same(fit(model, frame, data.draw(values(frame))), frame)


@pytest.mark.parametrize("base", [LogisticRegression, GaussianNB, lambda: LinearSVC(max_iter=50)])
@FEWER
@given(data=st.data())
def test_bagged_classifiers(base, data):
    frame = data.draw(frames())
    model = BaggingClassifier(
        base(),
        4,
        # So few rows that some parts do not see every class.
        max_samples=data.draw(st.sampled_from([10, 1.0])),
        max_features=data.draw(st.sampled_from([0.5, 1.0])),
        bootstrap_features=data.draw(st.booleans()),
        random_state=0,
    )
    try:
        fit(model, frame, data.draw(targets(frame)))
    except ValueError:  # all of a part's rows are of one class
        return
    if base is GaussianNB and any((part.class_prior_ == 0).any() for part in model.estimators_):
        with pytest.raises(NotCompiled):  # a class without rows makes NaN of everything
            compile_predictor(model, to_data(frame))
        return
    assert_same(model, frame)


@FEWER
@given(st.data())
def test_bagged_regressors(data):
    frame = data.draw(frames())
    model = BaggingRegressor(Ridge(), 5, max_features=data.draw(st.sampled_from([0.5, 1.0])), random_state=0)
    assert_same(fit(model, frame, data.draw(values(frame))), frame)


@pytest.mark.parametrize("base", [LogisticRegression, GaussianNB, lambda: LinearSVC(max_iter=50), Ridge])
@pytest.mark.parametrize("wrapper", [OneVsRestClassifier, OneVsOneClassifier])
@FEWER
@given(data=st.data())
def test_one_against_the_rest_and_one_against_one(wrapper, base, data):
    frame = data.draw(frames())
    if base is Ridge and wrapper is OneVsOneClassifier:
        return  # its votes are the regressor's values, which scikit-learn compares with 0 and 1
    assert_same(fit(wrapper(base()), frame, data.draw(targets(frame))), frame)


def test_parts_that_are_trees():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(90, 3)), columns=list("abc"))
    y = np.array(["x", "y", "z"])[np.arange(90) % 3]
    parts = [("forest", RandomForestClassifier(5, random_state=0)), ("logistic", LogisticRegression())]
    for model in (
        VotingClassifier(parts, voting="soft"),
        VotingClassifier(parts),
        StackingClassifier(parts, cv=2),
        BaggingClassifier(random_state=0),
        OneVsRestClassifier(RandomForestClassifier(5, random_state=0)),
    ):
        assert_same(model.fit(frame, y), frame)
    assert_same(BaggingRegressor(random_state=0).fit(frame, frame["a"]), frame)


def test_a_missing_number_is_refused_by_both():
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
    y = np.arange(20) % 2
    for model in (BaggingClassifier(LogisticRegression()), VotingClassifier(classifiers(None))):
        node = compiled(fit(model, frame, y), to_data(frame))
        broken = frame.assign(b=np.nan)
        with pytest.raises(ValueError, match="NaN"):
            model.predict(broken)
        with pytest.raises(ValueError, match="NaN"):
            node.output(to_data(broken))


def test_what_is_not_covered_is_not_compiled():
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
    y = np.arange(20) % 3
    several = OneVsRestClassifier(LogisticRegression()).fit(
        frame, np.stack([y > 0, y > 1], axis=1).astype(int)
    )
    kernel = VotingClassifier([("kernel", SVC())]).fit(frame, y)
    for model in (several, kernel):
        with pytest.raises(NotCompiled):
            compile_predictor(model, to_data(frame))
