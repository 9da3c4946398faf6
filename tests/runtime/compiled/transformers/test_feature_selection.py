"""Feature selectors, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
    f_regression,
)
from sklearn.linear_model import LinearRegression

from tests.runtime.compiled.transforming import (
    FEW,
    assert_same,
    compiled,
    schema_of,
    tables,
    to_data,
    to_frame,
)

Y = np.random.default_rng(0).normal(size=40)

SELECTORS = [
    SelectKBest(f_regression, k=1),
    SelectPercentile(f_regression, percentile=60),
    SelectFpr(f_regression, alpha=0.6),
    SelectFdr(f_regression, alpha=0.9),
    SelectFwe(f_regression, alpha=0.9),
    GenericUnivariateSelect(f_regression, mode="k_best", param=1),
    SelectFromModel(RandomForestRegressor(2, random_state=0)),
    VarianceThreshold(0.0),
]


@FEW
@given(
    st.sampled_from(SELECTORS),
    tables(("double", "float", "long", "boolean"), missing=False, extreme=False),
)
def test_the_columns_that_stay_are_the_originals(selector, rows):
    if isinstance(selector, VarianceThreshold) and any(
        np.unique(column).size == 1 for column in rows[0].values()
    ):
        return
    assert_same([selector], *rows, Y)


@pytest.mark.parametrize(
    "selector",
    [
        RFE(LinearRegression(), n_features_to_select=2),
        RFECV(LinearRegression(), cv=2),
        SequentialFeatureSelector(LinearRegression(), n_features_to_select=2, cv=2),
    ],
)
def test_selectors_that_fit_models_keep_what_they_chose(selector):
    rng = np.random.default_rng(0)
    train = {f"x{i}": rng.normal(size=40) for i in range(4)}
    test = {
        **{f"x{i}": rng.normal(size=8) for i in range(3)},
        "x3": np.array([1, np.nan, np.inf, 0, 0, 1, 2, 3]),
    }
    assert_same([selector], train, test, Y)


def test_missing_numbers_pass_where_the_estimator_takes_them():
    rng = np.random.default_rng(0)
    train = {f"x{i}": rng.normal(size=40) for i in range(3)}
    test = {"x0": np.array([1.0, np.nan]), "x1": np.array([1.0, 2.0]), "x2": np.array([1.0, 2.0])}
    assert_same([VarianceThreshold()], train, test)
    selector = SequentialFeatureSelector(
        HistGradientBoostingRegressor(max_iter=2), n_features_to_select=1, cv=2
    )
    assert_same([selector], train, test, Y)


@pytest.mark.parametrize(
    "selector",
    [
        VarianceThreshold(),
        SelectFromModel(RandomForestRegressor(2, random_state=0)),
        SelectKBest(f_regression, k=1),
    ],
)
def test_infinity_passes_where_missing_numbers_do(selector):
    train = {"x": np.arange(40.0), "y": np.arange(40.0) ** 2}
    test = {"x": np.array([np.inf, 1.0, np.nan]), "y": np.array([1.0, -np.inf, 2.0])}
    assert_same([selector], train, test, Y)


@pytest.mark.parametrize("selector", [VarianceThreshold(), SelectKBest(f_regression, k=1)])
def test_booleans_with_missing_ones_are_checked_as_objects(selector):
    train = {"x": np.arange(40.0), "y": np.arange(40) % 2 == 0}
    for x in (np.inf, np.nan, 1.0):
        test = {"x": np.array([x, 2.0]), "y": np.array([None, True], dtype=object)}
        fitted = clone(selector).fit(to_frame(train), Y)
        (node,) = compiled([fitted], to_data(train))
        try:
            expected = fitted.transform(to_frame(test, schema_of(train))).astype(np.float64)
        except ValueError:
            with pytest.raises(ValueError, match="NaN"):
                node.transform(to_data(test))
        else:
            assert np.array_equal(node.transform(to_data(test)), expected, equal_nan=True)


@FEW
@given(tables(("double", "text", "boolean")))
def test_a_selector_that_returns_frames_leaves_the_columns_as_they_are(rows):
    train, test = rows
    fitted = VarianceThreshold().fit(np.random.default_rng(0).normal(size=(9, len(train))))
    fitted.feature_names_in_ = np.array(list(train), dtype=object)
    fitted.set_output(transform="pandas")
    (node,) = compiled([fitted], to_data(test))
    got = node.transform(to_data(test))
    expected = fitted.transform(to_frame(test, schema_of(train)))
    assert list(got.names) == list(expected.columns)
    assert [array is not None for array in got.arrays] == [True] * expected.shape[1]


def test_no_column_may_stay():
    train = {"x": np.arange(40.0), "y": np.arange(40.0) ** 2}
    assert_same([SelectFpr(f_regression, alpha=1e-300)], train, train, Y)
