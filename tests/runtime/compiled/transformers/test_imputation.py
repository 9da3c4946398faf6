"""SimpleImputer and MissingIndicator, compiled."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import StandardScaler

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from serving.runtime.compiled.transformers.imputation import CellImputer
from tests.runtime.compiled.transforming import FEW, assert_same, columns, compiled, tables, to_data, to_frame

NUMBER_IMPUTERS = st.one_of(
    st.builds(
        SimpleImputer,
        strategy=st.sampled_from(["mean", "median", "most_frequent", np.max]),
        add_indicator=st.booleans(),
        keep_empty_features=st.booleans(),
    ),
    st.builds(
        SimpleImputer,
        strategy=st.just("constant"),
        fill_value=st.sampled_from([None, 0, -1, 2.5]),
        add_indicator=st.booleans(),
        keep_empty_features=st.booleans(),
    ),
)
CELL_IMPUTERS = st.one_of(
    st.builds(SimpleImputer, strategy=st.just("most_frequent"), add_indicator=st.booleans()),
    st.builds(
        SimpleImputer,
        strategy=st.just("constant"),
        fill_value=st.sampled_from(["missing", "a", "", None]),
        keep_empty_features=st.booleans(),
    ),
)


@FEW
@given(NUMBER_IMPUTERS, tables())
def test_numbers_are_imputed_as_the_original_does(imputer, rows):
    assert_same([imputer], *rows, may_not_fit=True)


@FEW
@given(NUMBER_IMPUTERS, tables(("float",)))
def test_float32_stays_float32(imputer, rows):
    assert_same([imputer], *rows, may_not_fit=True)


@FEW
@given(st.sampled_from(["mean", "median"]), tables(("double", "float", "boolean")))
def test_booleans_among_numbers_are_imputed_as_numbers(strategy, rows):
    assert_same([SimpleImputer(strategy=strategy)], *rows, may_not_fit=True)


@FEW
@given(st.sampled_from([-1, 0, 1.0]), st.sampled_from(["mean", "most_frequent"]), tables(("long", "double")))
def test_a_number_may_mean_missing(missing_values, strategy, rows):
    assert_same(
        [SimpleImputer(missing_values=missing_values, strategy=strategy, add_indicator=True)],
        *rows,
        may_not_fit=True,
    )


@FEW
@given(CELL_IMPUTERS, tables(("text",)))
def test_text_is_imputed_as_the_original_does(imputer, rows):
    assert_same([imputer], *rows, may_not_fit=True)


@FEW
@given(CELL_IMPUTERS, columns(("text",)), tables(("text", "double", "float", "long", "boolean")))
def test_numbers_beside_text_are_imputed_as_objects(imputer, text, rows):
    train, test = ({**table, "text": column} for table, column in zip(rows, text, strict=True))
    assert_same([imputer], train, test, may_not_fit=True)


@FEW
@given(st.sampled_from(["a", "", "1"]), tables(("text",)))
def test_a_text_may_mean_missing_and_then_nan_is_refused(missing_values, rows):
    assert_same(
        [SimpleImputer(missing_values=missing_values, strategy="most_frequent")], *rows, may_not_fit=True
    )


@FEW
@given(
    st.lists(CELL_IMPUTERS, min_size=1, max_size=2), tables(("text",)), st.sampled_from([None, "a", np.nan])
)
def test_imputers_in_a_row_do_what_one_after_the_other_did(imputers, rows, missing_values):
    assert_same(
        [*imputers, SimpleImputer(missing_values=missing_values, strategy="most_frequent")],
        *rows,
        may_not_fit=True,
    )


def test_text_imputers_in_a_row_become_one_step():
    table = {"x": np.array(["a", None, "b", "b"], dtype=object)}
    first = SimpleImputer(strategy="most_frequent").fit(to_frame(table))
    then = SimpleImputer(missing_values=None, strategy="constant").fit(first.transform(to_frame(table)))
    steps = compiled([first, then], to_data(table))
    assert [type(step) for step in steps] == [CellImputer]


def test_a_column_that_was_empty_in_the_fit_is_dropped_and_its_indicator_stays():
    train = {"x": np.array([np.nan, np.nan]), "y": np.array([1.0, np.nan])}
    test = {"x": np.array([1.0, np.nan, 3.0]), "y": np.array([np.nan, 2.0, 3.0])}
    assert_same([SimpleImputer(add_indicator=True)], train, test)


def test_an_empty_text_column_is_dropped_and_its_indicator_stays():
    train = {"x": np.array([None, None], dtype=object), "y": np.array(["a", None], dtype=object)}
    test = {"x": np.array(["q", None], dtype=object), "y": np.array([None, "b"], dtype=object)}
    assert_same([SimpleImputer(strategy="most_frequent", add_indicator=True)], train, test)


def test_pandas_na_means_missing_as_nan_does():
    train, test = {"x": np.array([1.0, np.nan, 2.0])}, {"x": np.array([np.nan, 5.0])}
    assert_same([SimpleImputer(missing_values=pd.NA)], train, test)
    words = {"x": np.array(["a", None, "a"], dtype=object)}
    assert_same([SimpleImputer(missing_values=pd.NA, strategy="most_frequent")], words, words)


def test_an_imputer_that_returns_frames_returns_columns():
    train = {"x": np.array([1.0, np.nan, 2.0]), "y": np.array([1.0, 4.0, 2.0])}
    assert_same([SimpleImputer().set_output(transform="pandas"), StandardScaler()], train, train)
    assert_same([SimpleImputer().set_output(transform="pandas")], train, train)


def test_a_constant_that_the_dtype_cannot_hold_is_refused():
    train, test = {"x": np.array([1.0, np.nan])}, {"x": np.array([1, 2])}
    assert_same([SimpleImputer(strategy="constant")], train, test)


def test_booleans_that_reach_an_imputer_of_any_numbers_are_not_compiled():
    fitted = SimpleImputer(strategy="most_frequent").fit(pd.DataFrame({"x": [1.0, 2.0], "y": [True, False]}))
    with pytest.raises(NotCompiled):
        compile_transformer(fitted, to_data({"x": np.array([1.0]), "y": np.array([True])}))


@FEW
@given(
    st.sampled_from(["missing-only", "all"]),
    st.booleans(),
    st.sampled_from([np.nan, 1.0]),
    tables(("double", "float", "long")),
)
def test_missing_numbers_are_indicated_as_the_original_does(features, error_on_new, missing_values, rows):
    assert_same(
        [MissingIndicator(features=features, error_on_new=error_on_new, missing_values=missing_values)],
        *rows,
        may_not_fit=True,
    )


@FEW
@given(
    st.sampled_from(["missing-only", "all"]),
    st.booleans(),
    st.sampled_from([np.nan, "a"]),
    st.sampled_from(["auto", True]),
    columns(("text",)),
    tables(("double", "text", "boolean")),
)
def test_missing_cells_are_indicated_as_the_original_does(
    features, error_on_new, missing_values, sparse, text, rows
):
    indicator = MissingIndicator(
        features=features, error_on_new=error_on_new, missing_values=missing_values, sparse=sparse
    )
    train, test = ({**table, "text": column} for table, column in zip(rows, text, strict=True))
    assert_same([indicator], train, test, may_not_fit=True)


def test_an_indicator_of_pandas_na_is_not_compiled():
    fitted = MissingIndicator(missing_values=pd.NA, features="all")
    fitted.features_, fitted.n_features_in_ = np.arange(1), 1
    with pytest.raises(NotCompiled):
        compile_transformer(fitted, np.ones((1, 1)))
