"""SplineTransformer, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import SplineTransformer

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from tests.runtime.compiled.transforming import FEW, assert_same, tables, to_data


@FEW
@given(
    st.integers(0, 4),
    st.integers(2, 7),
    st.sampled_from(["error", "constant", "linear", "continue", "periodic"]),
    st.sampled_from(["uniform", "quantile"]),
    st.booleans(),
    st.sampled_from(["C", "F"]),
    tables(missing=False),
)
def test_splines_are_the_originals(degree, n_knots, extrapolation, knots, include_bias, order, rows):
    splines = SplineTransformer(
        n_knots,
        degree,
        extrapolation=extrapolation,
        knots=knots,
        include_bias=include_bias,
        order=order,
    )
    # Beyond the knots polynomials grow: their terms are large, and cancel out.
    scale = 1.0
    if extrapolation in ("linear", "continue"):
        scale = max(1.0, *(_distance(rows[0][name], rows[1][name]) for name in rows[0])) ** max(degree, 1)
    try:
        assert_same([splines], *rows, scale=scale, may_not_fit=True)
    except NotCompiled:
        assert degree < 2


def _distance(train: np.ndarray, test: np.ndarray) -> float:
    """How far the rows lie beyond those of the fit, in widths between two knots."""
    finite = test[np.isfinite(test)].astype(float)
    width = (float(train.max()) - float(train.min())) / 7 or 1.0
    return float(np.abs(finite - float(train[0])).max(initial=0.0)) / width


@FEW
@given(
    st.sampled_from(["constant", "linear", "continue", "periodic"]),
    tables(("double", "float"), infinite=False),
)
def test_missing_numbers_become_zeros(extrapolation, rows):
    splines = SplineTransformer(3, 2, extrapolation=extrapolation, handle_missing="zeros")
    train, test = ({n: np.clip(c, -1e3, 1e3) for n, c in table.items()} for table in rows)
    assert_same([splines], train, test, scale=1e8, may_not_fit=True)


def test_a_sparse_matrix_is_not_compiled():
    table = {"x": np.linspace(0, 1, 30)}
    with pytest.raises(NotCompiled, match="sparse"):
        compile_transformer(SplineTransformer(sparse_output=True).fit(table["x"][:, None]), to_data(table))
