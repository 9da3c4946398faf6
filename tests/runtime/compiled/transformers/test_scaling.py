"""Scalers, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import (
    Binarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from tests.runtime.compiled.transforming import FEW, assert_same, tables

SCALERS = st.one_of(
    st.builds(StandardScaler, with_mean=st.booleans(), with_std=st.booleans()),
    st.builds(
        RobustScaler,
        with_centering=st.booleans(),
        with_scaling=st.booleans(),
        unit_variance=st.booleans(),
        quantile_range=st.sampled_from([(25.0, 75.0), (1.0, 99.0)]),
    ),
    st.builds(MaxAbsScaler, clip=st.booleans()),
    st.builds(
        MinMaxScaler, clip=st.booleans(), feature_range=st.sampled_from([(0, 1), (-1, 3), (0.25, 0.5)])
    ),
)


@FEW
@given(SCALERS, tables())
def test_scalers_scale_as_the_original(scaler, rows):
    assert_same([scaler], *rows)


@FEW
@given(SCALERS, tables(("double", "float", "long", "boolean")))
def test_booleans_among_numbers_are_scaled_as_numbers(scaler, rows):
    assert_same([scaler], *rows)


@FEW
@given(SCALERS, tables(("float",)))
def test_float32_stays_float32(scaler, rows):
    assert_same([scaler], *rows)


@FEW
@given(st.sampled_from(["l1", "l2", "max"]), tables(missing=False))
def test_rows_are_normalized_as_the_original_does(norm, rows):
    assert_same([Normalizer(norm=norm)], *rows)


@FEW
@given(st.sampled_from([0, 0.0, -1.5, 0.1, 3]), tables(missing=False))
def test_numbers_are_binarized_at_the_threshold(threshold, rows):
    assert_same([Binarizer(threshold=threshold)], *rows)


@pytest.mark.parametrize("scaler", [Normalizer(), Binarizer()])
def test_missing_numbers_are_refused_where_the_original_refuses_them(scaler):
    train = {"x": np.array([1.0, 2.0])}
    assert_same([scaler], train, {"x": np.array([1.0, np.nan])})


def test_a_threshold_with_a_precision_of_its_own_is_not_compiled():
    fitted = Binarizer(threshold=np.float32(0.1)).fit([[1.0]])
    with pytest.raises(NotCompiled):
        compile_transformer(fitted, np.ones((1, 1)))
