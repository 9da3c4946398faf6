"""PowerTransformer and QuantileTransformer, compiled."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.preprocessing import PowerTransformer, QuantileTransformer

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from serving.runtime.compiled.transformers import power_quantile
from tests.runtime.compiled.transforming import FEW, assert_same, difference, tables


def _assert_same(transformer, rows):
    train, test = rows
    assume(all(np.unique(column[~np.isnan(column)]).size > 1 for column in train.values()))
    assert_same([transformer], train, test, may_not_fit=True)


@FEW
@given(st.booleans(), tables())
def test_yeo_johnson_is_the_originals(standardize, rows):
    _assert_same(PowerTransformer(standardize=standardize), rows)


@FEW
@given(st.booleans(), tables(), st.booleans())
def test_box_cox_is_the_originals_and_refuses_what_is_not_positive(standardize, rows, only_positive):
    train, test = rows
    train = {name: np.abs(column) + np.asarray(1, column.dtype) for name, column in train.items()}
    if only_positive:
        test = {name: np.abs(column) + np.asarray(0.5).astype(column.dtype) for name, column in test.items()}
    _assert_same(PowerTransformer("box-cox", standardize=standardize), (train, test))


@pytest.mark.parametrize("power", [0.0, 1e-20, 1e-15, 1.0, 2.0, 2 + 1e-15, -3.0, 40.0, np.nan])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_special_powers_take_the_forms_that_scipy_gives_them(power, dtype):
    fitted = PowerTransformer(standardize=False).fit(np.arange(4.0)[:, None])
    fitted.lambdas_ = np.array([power])
    matrix = np.array([[0.0], [-0.0], [1e-9], [-1e-9], [2.0], [-2.0], [9.5], [-9.5], [np.nan]], dtype=dtype)
    node = compile_transformer(fitted, matrix)
    with np.errstate(all="ignore"):
        difference(fitted.transform(matrix), node.transform(matrix))


@pytest.mark.parametrize("power", [0.0, 1e-20, 0.5, -0.5, 2.0, 50.0, -50.0])
def test_box_cox_neither_overflows_nor_loses_digits_where_scipy_does_not(power):
    x = np.geomspace(1e-9, 1e9, 1001)
    expected = scipy.special.boxcox(x, power)
    with np.errstate(all="ignore"):
        assert power_quantile._boxcox(x[:, None], np.array([power]))[:, 0] == pytest.approx(
            expected, rel=1e-12, abs=1e-12
        )


@FEW
@given(st.sampled_from(["uniform", "normal"]), st.integers(2, 30), tables(extreme=False))
def test_quantiles_are_the_originals(distribution, n_quantiles, rows):
    transformer = QuantileTransformer(
        n_quantiles=n_quantiles, output_distribution=distribution, random_state=0
    )
    _assert_same(transformer, rows)


def test_the_normal_distributions_inverse_is_scipys():
    rng = np.random.default_rng(0)
    probability = np.concatenate(
        [rng.random(10_000), 10 ** -rng.uniform(0, 300, 10_000), [0.0, 1.0, 0.5, np.nan]]
    )
    probability = np.concatenate([probability, 1 - probability])
    difference(
        scipy.stats.norm.ppf(probability)[:, None], power_quantile.normal_quantile(probability)[:, None]
    )


def test_quantiles_that_leave_sparse_zeros_alone_are_not_compiled():
    fitted = QuantileTransformer(n_quantiles=2).fit(np.arange(4.0)[:, None])
    fitted.ignore_implicit_zeros = True
    with pytest.raises(NotCompiled):
        compile_transformer(fitted, np.ones((1, 1)))
