"""Encoders of categories, compiled."""

import datetime as dt
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, TargetEncoder

from serving.runtime.compiled.data import Columns, NotCompiled
from serving.runtime.compiled.nodes import compile_transformer
from serving.runtime.compiled.transformers import encoding
from tests.runtime.compiled.transforming import (
    FEW,
    assert_same,
    columns,
    compiled,
    rows_of,
    tables,
    to_data,
    to_frame,
)

ANY = ("text", "text", "double", "float", "long", "integer", "boolean")

GROUPING = {
    "min_frequency": st.sampled_from([None, 1, 3, 8, 0.1, 0.3]),
    "max_categories": st.sampled_from([None, 1, 2, 3, 5]),
}
ONE_HOT = st.builds(
    OneHotEncoder,
    handle_unknown=st.sampled_from(["error", "ignore", "infrequent_if_exist", "warn"]),
    drop=st.sampled_from([None, "first", "if_binary"]),
    sparse_output=st.booleans(),
    dtype=st.sampled_from([np.float64, np.float32, np.int32, bool]),
    **GROUPING,
)
ORDINAL = st.one_of(
    st.builds(OrdinalEncoder, encoded_missing_value=st.sampled_from([np.nan, -2, 99]), **GROUPING),
    st.builds(
        OrdinalEncoder,
        handle_unknown=st.just("use_encoded_value"),
        unknown_value=st.sampled_from([np.nan, -1, 200]),
        encoded_missing_value=st.sampled_from([np.nan, -2, -1]),
        dtype=st.sampled_from([np.float64, np.float32]),
        **GROUPING,
    ),
    st.builds(
        OrdinalEncoder,
        handle_unknown=st.just("use_encoded_value"),
        unknown_value=st.just(-1),
        encoded_missing_value=st.just(-2),
        dtype=st.just(np.int64),
    ),
)
IMPUTERS = st.lists(
    st.one_of(
        st.builds(
            SimpleImputer,
            strategy=st.just("most_frequent"),
            missing_values=st.sampled_from([np.nan, None, "a"]),
        ),
        st.builds(
            SimpleImputer,
            strategy=st.just("constant"),
            fill_value=st.sampled_from(["?", "a", "b"]),
            missing_values=st.sampled_from([np.nan, None, ""]),
        ),
    ),
    min_size=1,
    max_size=3,
)


def _targets(kind, n_rows, seed):
    rng = np.random.default_rng(seed)
    if kind == "continuous":
        return rng.normal(size=n_rows)
    classes = np.array(["no", "yes"] if kind == "binary" else ["x", "y", "z", "w"])
    return classes[np.arange(n_rows) % len(classes)][rng.permutation(n_rows)]


@FEW
@given(ONE_HOT, tables(ANY))
def test_one_hot_encodes_as_the_original(encoder, rows):
    assert_same([encoder], *rows, may_not_fit=True)


@FEW
@given(ONE_HOT, tables(("text",)))
def test_one_hot_encodes_text_as_the_original(encoder, rows):
    assert_same([encoder], *rows, may_not_fit=True)


@FEW
@given(ORDINAL, tables(ANY))
def test_ordinal_encodes_as_the_original(encoder, rows):
    assert_same([encoder], *rows, may_not_fit=True)


@FEW
@given(
    st.sampled_from(["continuous", "binary", "multiclass"]),
    st.sampled_from(["auto", 0.0, 10.0]),
    st.integers(0, 1000),
    tables(ANY),
)
def test_target_encodes_as_the_original(kind, smooth, seed, rows):
    assert_same([TargetEncoder(smooth=smooth)], *rows, _targets(kind, 40, seed), may_not_fit=True)


@FEW
@given(IMPUTERS, st.one_of(ONE_HOT, ORDINAL), tables(("text",)))
def test_imputers_in_an_encoders_dictionary_do_what_they_did_before_it(imputers, encoder, rows):
    assert_same([*imputers, encoder], *rows, may_not_fit=True)


@FEW
@given(IMPUTERS, st.one_of(ONE_HOT, ORDINAL), columns(("text",)), tables(ANY))
def test_numbers_beside_text_are_encoded_as_objects(imputers, encoder, text, rows):
    train, test = ({**table, "text": column} for table, column in zip(rows, text, strict=True))
    assert_same([*imputers, encoder], train, test, may_not_fit=True)


@FEW
@given(ONE_HOT, tables(("double", "long")))
def test_a_matrix_is_encoded_as_columns_are(encoder, rows):
    train, test = (np.column_stack(list(table.values())) for table in rows)
    if not np.isfinite(test).all():
        return
    fitted = encoder.set_params(handle_unknown="ignore", sparse_output=False).fit(train)
    (node,) = compiled([fitted], train)
    for part in (test, test[:1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.array_equal(node.transform(part), fitted.transform(part))


def test_two_imputers_and_a_one_hot_encoder_become_one_step():
    table = {
        "x": np.array(["a", None, "b", "b"], dtype=object),
        "y": np.array(["a", None, "c", "d"], dtype=object),
    }
    imputers = [
        SimpleImputer(strategy="constant", fill_value="?"),
        SimpleImputer(missing_values=None, strategy="most_frequent"),
    ]
    frame = to_frame(table)
    fitted = []
    for transformer in [*imputers, OneHotEncoder()]:
        frame = transformer.fit_transform(frame)
        fitted.append(transformer)
    steps = compiled(fitted, to_data(table))
    assert [type(step) for step in steps] == [encoding.OneHotEncoder]


def test_a_dropped_category_may_be_named():
    table = {"x": np.array(["a", "b", "c", None], dtype=object)}
    assert_same([OneHotEncoder(drop=["b"], handle_unknown="ignore")], table, table)
    assert_same([OneHotEncoder(drop=[np.nan])], table, table)


def test_categories_may_be_given():
    table = {"x": np.array(["low", "high", None], dtype=object), "y": np.array([3, 1, 3])}
    categories = [["low", "middle", "high", np.nan], [1, 2, 3]]
    assert_same([OneHotEncoder(categories=categories)], table, table)
    assert_same([OrdinalEncoder(categories=categories)], table, table)


def test_none_and_nan_are_two_categories():
    fitted = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    fitted.fit(pd.DataFrame({"x": pd.Series(["a", None, "b"], dtype=object)}))
    cells = np.array(["b", None, np.nan], dtype=object)
    (node,) = compiled([fitted], Columns(("x",), [cells]))
    expected = fitted.transform(pd.DataFrame({"x": pd.Series(cells, dtype=object)}))
    assert expected[1].tolist() == [0, 0, 1]
    assert np.array_equal(node.transform(Columns(("x",), [cells])), expected)


def test_every_not_a_number_is_missing_whichever_object_it_is():
    table = {"x": np.array(["a", float("nan"), None, np.float64("nan")], dtype=object)}
    assert_same([OneHotEncoder()], table, table)


def test_whole_numbers_that_become_floats_keep_their_categories():
    train = {"x": np.array([1, 2, 3]), "y": np.array([True, False, True])}
    test = {"x": np.array([1.0, np.nan, 3.0]), "y": np.array([True, None, False], dtype=object)}
    assert_same([OneHotEncoder(handle_unknown="ignore")], train, test)
    assert_same([OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)], train, test)


def test_an_unknown_category_is_refused_without_naming_it():
    table = {"x": np.array(["a", "b"], dtype=object)}
    fitted = OneHotEncoder().fit(to_frame(table))
    (node,) = compiled([fitted], to_data(table))
    for n_rows in (1, 2):
        with pytest.raises(ValueError, match="unknown categories") as caught:
            node.transform(rows_of_data({"x": np.array(["secret"] * n_rows, dtype=object)}))
        assert "secret" not in str(caught.value)


def rows_of_data(table):
    return to_data(rows_of(table, 0, len(table["x"])))


def test_categories_of_other_types_are_not_compiled():
    days = pd.DataFrame({"x": np.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)], dtype=object)})
    fitted = OneHotEncoder().fit(days)
    with pytest.raises(NotCompiled):
        compile_transformer(fitted, Columns(("x",), [days["x"].to_numpy()]))


@FEW
@given(
    st.sampled_from(["onehot", "onehot-dense", "ordinal"]),
    st.sampled_from(["uniform", "quantile", "kmeans"]),
    st.sampled_from([None, np.float32, np.float64]),
    st.integers(2, 6),
    tables(missing=False),
)
def test_numbers_fall_into_the_bins_of_the_original(encode, strategy, dtype, n_bins, rows):
    discretizer = KBinsDiscretizer(
        n_bins, encode=encode, strategy=strategy, dtype=dtype, quantile_method="averaged_inverted_cdf"
    )
    assert_same([discretizer], *rows, may_not_fit=True)


def test_a_number_on_an_edge_falls_into_the_bin_above():
    train = {"x": np.arange(11.0)}
    discretizer = KBinsDiscretizer(
        5, strategy="uniform", encode="ordinal", quantile_method="averaged_inverted_cdf"
    )
    assert_same([discretizer], train, {"x": np.arange(0.0, 10.5, 0.5)})
