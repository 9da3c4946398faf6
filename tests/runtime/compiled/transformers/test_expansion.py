"""PolynomialFeatures, PCA and TruncatedSVD, compiled."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from tests.runtime.compiled.transforming import FEW, assert_same, tables


@FEW
@given(
    st.one_of(
        st.integers(0, 4),
        st.tuples(st.integers(0, 3), st.integers(0, 4)).map(lambda ends: tuple(sorted(ends))),
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["C", "F"]),
    tables(missing=False),
)
def test_products_are_the_originals(degree, interaction_only, include_bias, order, rows):
    assume(include_bias or max(np.atleast_1d(degree)) > 0)
    features = PolynomialFeatures(
        degree, interaction_only=interaction_only, include_bias=include_bias, order=order
    )
    assert_same([features], *rows)


def _projected(transformers, rows):
    """Columns that say the same are one: what is left of the other is rounding."""
    train = {str(column.tolist()): name for name, column in rows[0].items() if np.unique(column).size > 1}
    train, test = ({name: table[name] for name in train.values()} for table in rows)
    assume(len(train) >= 1)
    scale = max(1.0, *(float(np.abs(column[np.isfinite(column)]).max()) for column in test.values()))
    return assert_same(transformers(len(train)), train, test, scale=scale)


@FEW
@given(st.booleans(), st.integers(1, 3), tables(missing=False, extreme=False))
def test_principal_components_are_the_originals(whiten, n_components, rows):
    try:
        _projected(lambda n_columns: [PCA(min(n_components, n_columns), whiten=whiten)], rows)
    except NotCompiled:
        assert whiten


@FEW
@given(st.booleans(), tables(("float", "double"), missing=False, extreme=False))
def test_scaled_numbers_are_projected_as_the_original_does(whiten, rows):
    try:
        _projected(lambda _: [StandardScaler(), PCA(whiten=whiten)], rows)
    except NotCompiled:
        assert whiten


@FEW
@given(st.sampled_from(["arpack", "randomized"]), tables(missing=False, extreme=False))
def test_singular_vectors_are_the_originals(algorithm, rows):
    def svd(n_columns):
        assume(n_columns > 1)
        return [TruncatedSVD(1, algorithm=algorithm, random_state=0)]

    _projected(svd, rows)


def test_a_whitened_component_without_variance_is_not_compiled():
    column = np.arange(5.0)
    fitted = PCA(whiten=True).fit(np.column_stack([column, column]))
    with pytest.raises(NotCompiled):
        compile_transformer(fitted, np.ones((1, 2)))


def test_a_sparse_one_hot_encoding_is_projected_as_a_dense_one():
    rng = np.random.default_rng(0)
    words = np.array(["a", "b", "c", "d"], dtype=object)
    train = {name: words[rng.integers(0, 4, 50)] for name in "xyz"}
    assert_same([OneHotEncoder(), TruncatedSVD(3, random_state=0)], train, train)
