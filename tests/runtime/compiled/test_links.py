import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import special
from sklearn._loss.link import MultinomialLogit
from sklearn.utils._array_api import _logsumexp
from sklearn.utils.extmath import softmax as softmax_of_sklearn

from serving.runtime.compiled.links import expit, log_sum_exp, logit, softmax
from tests.runtime.compiled.parity import FEW

NUMBERS = st.floats(-800, 800) | st.floats(-40, 40)
MATRICES = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=NUMBERS)


@FEW
@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(-708, 708) | st.floats(-40, 40)))
def test_expit_is_bit_for_bit_that_of_scipy(x):
    assert np.array_equal(expit(x), special.expit(x))


def test_expit_is_bit_for_bit_that_of_scipy_on_many_numbers():
    rng = np.random.default_rng(0)
    for scale in (0.001, 1, 20, 200):
        x = rng.normal(size=100_000) * scale
        assert np.array_equal(expit(x), special.expit(x))


@pytest.mark.parametrize("x", [np.inf, -np.inf, 1e308, -1e308, 710.0, -710.0, -745.2, 0.0, -0.0])
def test_expit_far_out_neither_warns_nor_differs(x):
    assert expit(np.array([x])) == pytest.approx(special.expit(np.array([x])), rel=0, abs=1e-300)


def test_expit_of_float32_is_float32():
    x = np.linspace(-120, 120, 10_001, dtype=np.float32)
    assert expit(x).dtype == np.float32
    assert np.abs(expit(x) - special.expit(x)).max() < 1e-44


@FEW
@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 1)))
def test_logit_is_that_of_scipy_but_for_the_last_digit(p):
    want = special.logit(p)
    finite = np.isfinite(want)
    assert np.array_equal(finite, np.isfinite(logit(p)))
    assert np.allclose(logit(p)[finite], want[finite], rtol=1e-15, atol=1e-15)


@FEW
@given(MATRICES)
def test_softmax_is_bit_for_bit_that_of_scikit_learn(x):
    assert np.array_equal(softmax(x), softmax_of_sklearn(x.copy()))
    assert np.array_equal(softmax(x), MultinomialLogit().inverse(x.copy()))


@FEW
@given(MATRICES)
def test_log_sum_exp_is_bit_for_bit_that_of_scikit_learn(x):
    assert np.array_equal(log_sum_exp(x)[:, 0], np.atleast_1d(_logsumexp(x, axis=1)))


def test_log_sum_exp_counts_equal_peaks_and_keeps_minus_infinity():
    x = np.array([[0.0, 0.0, -np.inf], [-np.inf, -np.inf, -np.inf], [5.0, 5.0, 5.0]])
    with np.errstate(divide="ignore"):
        assert np.array_equal(log_sum_exp(x)[:, 0], _logsumexp(x, axis=1))
