import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # the next import wants it
from sklearn.feature_selection import RFE, RFECV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, RANSACRegressor, Ridge
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.semi_supervised import SelfTrainingClassifier

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.parity import FEW, assert_same, compiled, frames, targets, to_data, values

FUNCTIONS = [
    (np.log1p, np.expm1),
    (np.log, np.exp),
    (np.sqrt, np.square),
    (np.arcsinh, np.sinh),
    (np.cbrt, lambda x: x**3),
    (None, None),
]

TRANSFORMERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler((-1, 3)),
    RobustScaler(),
    RobustScaler(with_centering=False),
    MaxAbsScaler(),
    PowerTransformer(),
    PowerTransformer(standardize=False),
    FunctionTransformer(np.log, np.exp),
]


def fit(model, frame, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frame, y)


@pytest.mark.parametrize(("func", "inverse"), FUNCTIONS[:4] + FUNCTIONS[5:])
@FEW
@given(data=st.data())
def test_targets_come_back_through_functions_of_numpy(func, inverse, data):
    frame = data.draw(frames(("double", "long", "mixed")))
    model = TransformedTargetRegressor(Ridge(), func=func, inverse_func=inverse, check_inverse=False)
    y = data.draw(values(frame, n_targets=data.draw(st.integers(0, 2)), positive=True))
    assert_same(fit(model, frame, y), frame)


@pytest.mark.parametrize("transformer", TRANSFORMERS)
@FEW
@given(data=st.data())
def test_targets_come_back_through_scalers(transformer, data):
    frame = data.draw(frames(("double", "long", "mixed")))
    y = data.draw(values(frame, n_targets=data.draw(st.integers(0, 2)), positive=True))
    assert_same(fit(TransformedTargetRegressor(LinearRegression(), transformer=transformer), frame, y), frame)


@pytest.mark.parametrize(
    "search",
    [
        lambda model: GridSearchCV(model, {"C": [0.1, 1.0]}, cv=2),
        lambda model: RandomizedSearchCV(model, {"C": [0.1, 1.0, 2.0]}, n_iter=2, cv=2, random_state=0),
        lambda model: HalvingGridSearchCV(model, {"C": [0.1, 1.0]}, cv=2, min_resources=20, random_state=0),
    ],
)
def test_a_search_is_its_best_estimator(search):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)), columns=list("abc"))
    assert_same(search(LogisticRegression()).fit(frame, np.where(frame["a"] > 0, "p", "n")), frame)


@pytest.mark.parametrize(
    "model",
    [
        RANSACRegressor(random_state=0),
        RANSACRegressor(RandomForestRegressor(3, random_state=0), min_samples=20, random_state=0),
        RFE(Ridge(), n_features_to_select=2),
        RFE(LogisticRegression(), n_features_to_select=1),
        RFECV(RandomForestClassifier(3, random_state=0), cv=2),
        make_pipeline(StandardScaler(), RFECV(Ridge(), cv=2)),
        SelfTrainingClassifier(LogisticRegression()),
        SelfTrainingClassifier(RandomForestClassifier(3, random_state=0), threshold=0.6),
    ],
    ids=repr,
)
def test_what_was_fitted_last_answers(model):
    """On the inliers, on the features that were selected, or with labels that were added."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 4)), columns=list("abcd"))
    score = frame["a"] - 2 * frame["c"] + rng.normal(size=120)
    y = np.where(score > 0, 2, 1) if is_classifier(model) else score + 50 * (rng.random(120) > 0.9)
    if isinstance(model, SelfTrainingClassifier):
        y[::3] = -1
    assert_same(fit(model, frame, y), frame)


def test_a_frozen_estimator_is_the_one_inside():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)), columns=list("abc"))
    assert_same(FrozenEstimator(Ridge().fit(frame, frame["a"])), frame)


@pytest.mark.parametrize("strategy", ["prior", "most_frequent", "constant"])
@FEW
@given(data=st.data())
def test_baseline_classifiers(strategy, data):
    frame = data.draw(frames())
    y = data.draw(targets(frame))
    constant = y[0].item() if isinstance(y[0], np.generic) else y[0]
    model = DummyClassifier(strategy=strategy, constant=constant if strategy == "constant" else None)
    try:
        fit(model, frame, y)
    except ValueError:  # scikit-learn wants a constant that is an integer or text
        return
    assert_same(model, frame)


@pytest.mark.parametrize("n_targets", [0, 1, 3])
@pytest.mark.parametrize("options", [{}, {"strategy": "median"}, {"strategy": "quantile", "quantile": 0.2}])
def test_baseline_regressors(options, n_targets):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(9, 2)), columns=list("ab"))
    y = rng.normal(size=(9, n_targets)) if n_targets else rng.normal(size=9)
    assert_same(DummyRegressor(**options).fit(frame, y), frame)


def test_baselines_look_at_no_column():
    frame = pd.DataFrame({"a": [1.0, np.nan, np.inf]})
    assert_same(DummyRegressor(strategy="constant", constant=3).fit(frame, [1, 2, 3]), frame)
    assert_same(DummyClassifier().fit(frame, ["x", "y", "y"]), frame)


def test_a_missing_number_is_refused_by_both():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 1.0], "b": [0.0, 1.0, 1.0, 0.0]})
    model = TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1).fit(frame, [0, 1, 1, 0])
    node = compiled(model, to_data(frame))
    frame.loc[2, "a"] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.predict(frame)
    with pytest.raises(ValueError, match="NaN"):
        node.output(to_data(frame))


def test_what_is_not_covered_is_not_compiled():
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
    y = np.arange(20) % 3
    own = TransformedTargetRegressor(Ridge(), func=np.cbrt, inverse_func=lambda x: x**3).fit(frame, y + 1.0)
    quantiles = TransformedTargetRegressor(Ridge(), transformer=QuantileTransformer(n_quantiles=5)).fit(
        frame, y
    )
    lots = DummyClassifier(strategy="uniform").fit(frame, y)
    for model in (own, quantiles, lots):
        with pytest.raises(NotCompiled):
            compile_predictor(model, to_data(frame))
