"""IterativeImputer, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # the next import wants it
from sklearn.impute import IterativeImputer
from sklearn.linear_model import BayesianRidge, Ridge

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from tests.runtime.compiled.transforming import FEW, assert_same, tables, to_data

ESTIMATORS = [BayesianRidge(), Ridge(), RandomForestRegressor(3, random_state=0, max_depth=3)]


@FEW
@given(
    st.sampled_from(ESTIMATORS),
    st.sampled_from(["mean", "median", "most_frequent", "constant"]),
    st.booleans(),
    st.sampled_from([(-np.inf, np.inf), (-1.0, 2.0)]),
    st.sampled_from([None, 1]),
    tables(("double", "long"), extreme=False),
)
def test_imputed_numbers_are_the_originals(estimator, strategy, add_indicator, limits, nearest, rows):
    imputer = IterativeImputer(
        estimator,
        max_iter=3,
        initial_strategy=strategy,
        add_indicator=add_indicator,
        min_value=limits[0],
        max_value=limits[1],
        n_nearest_features=nearest,
        random_state=0,
    )
    scale = max(1.0, *(float(np.nanmax(np.abs(column), initial=0)) for column in rows[0].values())) * 1e3
    assert_same([imputer], *rows, scale=scale, may_not_fit=True)


def test_another_number_stands_for_missing():
    rng = np.random.default_rng(0)
    train = {name: rng.integers(-1, 9, 60).astype(float) for name in "abc"}
    test = {name: rng.integers(-1, 9, 20).astype(float) for name in "abc"}
    assert_same([IterativeImputer(missing_values=-1, max_iter=4)], train, test)


def test_columns_that_were_empty_are_dropped():
    rng = np.random.default_rng(0)
    train = {"a": rng.normal(size=60), "b": np.full(60, np.nan), "c": rng.normal(size=60)}
    train["a"][::7] = np.nan
    test = {name: np.where(rng.random(20) < 0.3, np.nan, rng.normal(size=20)) for name in train}
    assert_same([IterativeImputer(max_iter=2)], train, test)


def test_lots_are_not_compiled():
    table = {name: np.random.default_rng(0).normal(size=40) for name in "ab"}
    table["a"][:5] = np.nan
    imputer = IterativeImputer(sample_posterior=True, max_iter=2).fit(np.column_stack(list(table.values())))
    with pytest.raises(NotCompiled, match="distribution"):
        compile_transformer(imputer, to_data(table))
