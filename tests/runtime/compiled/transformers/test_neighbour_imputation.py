"""KNNImputer, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import KNNImputer

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from tests.runtime.compiled.transforming import FEW, assert_same, tables, to_data


@FEW
@given(
    st.integers(1, 6),
    st.sampled_from(["uniform", "distance"]),
    st.booleans(),
    tables(("double", "long"), extreme=False),
)
def test_imputed_numbers_are_the_originals(n_neighbors, weights, add_indicator, rows):
    assert_same([KNNImputer(n_neighbors=n_neighbors, weights=weights, add_indicator=add_indicator)], *rows)


def test_rows_that_are_equally_near_count_as_in_the_original():
    rng = np.random.default_rng(0)
    train = {name: rng.integers(0, 3, 200).astype(float) for name in "abcd"}
    test = {name: np.where(rng.random(60) < 0.4, np.nan, rng.integers(0, 3, 60)) for name in "abcd"}
    for weights in ("uniform", "distance"):
        assert assert_same([KNNImputer(n_neighbors=3, weights=weights)], train, test) == 0


def test_another_number_stands_for_missing_and_empty_columns_are_dropped():
    rng = np.random.default_rng(0)
    train = {name: rng.integers(-1, 9, 60).astype(float) for name in "abc"} | {"d": np.full(60, -1.0)}
    test = {name: rng.integers(-1, 9, 20).astype(float) for name in "abcd"}
    assert_same([KNNImputer(missing_values=-1)], train, test)


def test_weights_of_ones_own_are_not_compiled():
    table = {"a": np.arange(9.0), "b": np.arange(9.0)}
    imputer = KNNImputer(weights=np.sqrt).fit(np.column_stack(list(table.values())))
    with pytest.raises(NotCompiled, match="custom"):
        compile_transformer(imputer, to_data(table))
