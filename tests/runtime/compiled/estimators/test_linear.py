import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import linear_model as lm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.svm import SVC, LinearSVC, LinearSVR

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.parity import (
    FEW,
    assert_same,
    compiled,
    difference,
    frames,
    targets,
    to_data,
    values,
)


def fit(model, frame, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frame, y)


def passive_aggressive(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(lm, name)()


REGRESSORS = {
    "linear": lm.LinearRegression,
    "no intercept": lambda: lm.LinearRegression(fit_intercept=False),
    "positive": lambda: lm.LinearRegression(positive=True),
    "ridge": lm.Ridge,
    "ridge by sag": lambda: lm.Ridge(solver="sag", fit_intercept=True),
    "ridge cv": lm.RidgeCV,
    "lasso": lambda: lm.Lasso(0.01),
    "lasso cv": lambda: lm.LassoCV(cv=3, alphas=5),
    "elastic net": lambda: lm.ElasticNet(0.01),
    "elastic net cv": lambda: lm.ElasticNetCV(cv=3, alphas=5),
    "lars": lm.Lars,
    "lars cv": lambda: lm.LarsCV(cv=3, max_iter=5),
    "lasso lars": lambda: lm.LassoLars(0.01),
    "lasso lars cv": lambda: lm.LassoLarsCV(cv=3, max_iter=5),
    "lasso lars ic": lm.LassoLarsIC,
    "matching pursuit": lm.OrthogonalMatchingPursuit,
    "bayesian ridge": lm.BayesianRidge,
    "ard": lambda: lm.ARDRegression(max_iter=20),
    "huber": lambda: lm.HuberRegressor(max_iter=20),
    "theil sen": lambda: lm.TheilSenRegressor(max_subpopulation=50, random_state=0),
    "quantile": lambda: lm.QuantileRegressor(alpha=0.01),
    "sgd": lambda: lm.SGDRegressor(max_iter=20),
    "averaged sgd": lambda: lm.SGDRegressor(max_iter=20, average=True),
    "passive aggressive": lambda: passive_aggressive("PassiveAggressiveRegressor"),
    "svr": lambda: LinearSVR(max_iter=50),
}

SEVERAL_TARGETS = {
    name: REGRESSORS[name] for name in ("linear", "no intercept", "ridge", "ridge cv", "lasso", "lars")
} | {
    "multi-task lasso": lambda: lm.MultiTaskLasso(0.01),
    "multi-task elastic net": lambda: lm.MultiTaskElasticNet(0.01),
    "multi-task lasso cv": lambda: lm.MultiTaskLassoCV(cv=3, alphas=5),
    "multi-task elastic net cv": lambda: lm.MultiTaskElasticNetCV(cv=3, alphas=5),
}

GENERALIZED = {
    "poisson": lambda: lm.PoissonRegressor(max_iter=20),
    "gamma": lambda: lm.GammaRegressor(max_iter=20),
    "tweedie": lambda: lm.TweedieRegressor(power=1.5, max_iter=20),
    "tweedie of the identity": lambda: lm.TweedieRegressor(power=0, max_iter=20),
    "tweedie of a given link": lambda: lm.TweedieRegressor(power=0, link="log", max_iter=20),
}

CLASSIFIERS = {
    "logistic": lambda: lm.LogisticRegression(max_iter=20),
    "logistic without intercept": lambda: lm.LogisticRegression(fit_intercept=False, max_iter=20),
    "logistic by newton": lambda: lm.LogisticRegression(solver="newton-cholesky", C=0.1),
    "logistic by saga": lambda: lm.LogisticRegression(solver="saga", l1_ratio=1.0, max_iter=20),
    "logistic cv": lambda: lm.LogisticRegressionCV(
        Cs=2,
        cv=2,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
        scoring="neg_log_loss",
        max_iter=10,
    ),
    "hinge": lambda: lm.SGDClassifier(max_iter=20),
    "sgd by log loss": lambda: lm.SGDClassifier(loss="log_loss", max_iter=20),
    "sgd by modified huber": lambda: lm.SGDClassifier(loss="modified_huber", max_iter=20, average=True),
    "perceptron": lambda: lm.Perceptron(max_iter=20),
    "passive aggressive": lambda: passive_aggressive("PassiveAggressiveClassifier"),
    "svc": lambda: LinearSVC(max_iter=50),
    "ridge": lm.RidgeClassifier,
    "ridge cv": lm.RidgeClassifierCV,
    "discriminant": LinearDiscriminantAnalysis,
    "shrunk discriminant": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
}


@pytest.mark.parametrize("name", REGRESSORS)
@given(st.data())
@FEW
def test_regressors_predict_what_scikit_learn_predicts(name, data):
    frame = data.draw(frames())
    assert_same(fit(REGRESSORS[name](), frame, data.draw(values(frame))), frame)


@pytest.mark.parametrize("name", SEVERAL_TARGETS)
@given(st.data())
@FEW
def test_several_targets_keep_their_columns(name, data):
    frame = data.draw(frames())
    y = data.draw(values(frame, n_targets=data.draw(st.integers(1, 4))))
    assert_same(fit(SEVERAL_TARGETS[name](), frame, y), frame)


@pytest.mark.parametrize("name", GENERALIZED)
@given(st.data())
@FEW
def test_generalized_models_go_through_their_link(name, data):
    frame = data.draw(frames())
    frame = (frame - frame.mean()) / (frame.std() + 1e-9)
    assert_same(fit(GENERALIZED[name](), frame, data.draw(values(frame, positive=True))), frame)


@pytest.mark.parametrize("name", CLASSIFIERS)
@given(st.data())
@FEW
def test_classifiers_say_what_scikit_learn_says(name, data):
    frame = data.draw(frames())
    y = data.draw(targets(frame))
    model = fit(CLASSIFIERS[name](), frame, y)
    assert_same(model, frame)
    rows = to_data(frame)
    assert difference(model.decision_function(frame), compiled(model, rows).decision(rows)) <= 1e-12


def test_liblinear_is_the_same_formula():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=list("abc"))
    model = lm.LogisticRegression(solver="liblinear").fit(frame, frame["a"] > 0)
    assert_same(model, frame)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float32_stays_where_scikit_learn_lets_it(dtype):
    frame = pd.DataFrame(
        np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), columns=list("abc")
    )
    for model in (lm.LinearRegression(), lm.LinearRegression(fit_intercept=False)):
        assert_same(model.fit(frame, frame["a"]), frame.astype(dtype))
    assert_same(lm.LogisticRegression().fit(frame, frame["a"] > 0), frame.astype(dtype))


def test_rows_far_from_every_class_are_uniform_by_modified_huber():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(90, 2)), columns=list("ab"))
    y = np.arange(90) % 3
    model = lm.SGDClassifier(loss="modified_huber", random_state=0).fit(frame, y)
    model.intercept_ = model.intercept_ - 1e6
    assert_same(model, frame)
    assert np.allclose(compiled(model, to_data(frame)).output(to_data(frame)).probabilities, 1 / 3)


@pytest.mark.parametrize("model", [lm.LogisticRegression(), lm.LinearRegression(), lm.PoissonRegressor()])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_both(model, value):
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 0.0, 1.0]})
    model.fit(frame, [0, 1, 1, 1])
    node = compiled(model, to_data(frame))
    frame.loc[1, "b"] = value
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        model.predict(frame)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        node.output(to_data(frame))


def test_other_columns_than_in_the_fit_are_not_compiled():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, 0.0]})
    model = lm.LinearRegression().fit(frame, [1, 2, 3])
    with pytest.raises(NotCompiled):
        compile_predictor(model, to_data(frame[["b", "a"]]))


def test_what_is_not_covered_is_not_compiled():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 0.0, 1.0]})
    several_labels = lm.RidgeClassifier().fit(frame, [[0, 1], [1, 0], [1, 1], [0, 1]])
    sparse = lm.LogisticRegression().fit(frame, [0, 1, 1, 0]).sparsify()
    kernel = SVC().fit(frame, [0, 1, 1, 0])
    for model in (several_labels, sparse, kernel):
        with pytest.raises(NotCompiled):
            compile_predictor(model, to_data(frame))
