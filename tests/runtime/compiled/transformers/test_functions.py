"""FunctionTransformer, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from tests.runtime.compiled.transforming import FEW, assert_same, tables

UFUNCS = [np.log1p, np.log, np.log2, np.log10, np.sqrt, np.cbrt, np.exp, np.expm1, np.abs, np.square, np.sign]
UFUNCS += [np.floor, np.ceil, np.rint, np.tanh, np.arcsinh, np.isnan, np.negative, np.reciprocal, np.sin]


@FEW
@given(st.sampled_from([None, *UFUNCS]), st.booleans(), tables())
def test_functions_of_one_number_are_numpys(function, validate, rows):
    assert_same([FunctionTransformer(function, validate=validate), StandardScaler()], *_mild(rows, function))


@FEW
@given(st.sampled_from([None, *UFUNCS]), st.booleans(), tables(missing=False))
def test_functions_return_the_dtype_that_numpy_returns(function, validate, rows):
    assert_same([FunctionTransformer(function, validate=validate)], *_mild(rows, function))


def _mild(rows, function):
    """The original is fitted on what its function and the next step accept."""
    train = {
        name: np.abs(np.nan_to_num(column)) % 50 + np.asarray(1, column.dtype)
        for name, column in rows[0].items()
    }
    return train, rows[1]


@FEW
@given(tables(("text", "double", "boolean")))
def test_without_a_function_nothing_changes(rows):
    assert_same([FunctionTransformer()], *rows)


@pytest.mark.parametrize(
    "transformer",
    [
        FunctionTransformer(lambda matrix: matrix),
        FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": 1}),
        FunctionTransformer(np.log1p, kw_args={"where": True}),
        FunctionTransformer(np.nan_to_num),
    ],
)
def test_other_functions_are_not_compiled(transformer):
    fitted = transformer.fit(np.ones((2, 2)))
    with pytest.raises(NotCompiled):
        compile_transformer(fitted, np.ones((1, 2)))
