"""`serving.monitoring.drift.reference`: the bins that a reference makes, and what falls into them."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.model.schema import Column, Form, Inputs, Kind, Schema, Type
from serving.monitoring.drift.features import Binner, Counted, Feature
from serving.monitoring.drift.reference import Reference, freeze
from serving.runtime import Output


def column(kind: Kind, **more: Any) -> Schema:
    return Schema((Column("x", Type(kind, **more)),), Form.RECORD)


def frozen(kind: Kind, values: Any, output: Output | None = None, **more: Any) -> Reference:
    inputs = Inputs((values,), len(values))
    reference = freeze(column(kind, **more), inputs, output, is_sample=True)
    assert msgspec.json.decode(msgspec.json.encode(reference), type=Reference) == reference
    return reference


def texts(*values: Any) -> Any:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def counts(feature: Feature, values: Any) -> dict[str, int]:
    counted = Binner(feature).count(values).bins.tolist()
    return {name: n for name, n in zip(feature.bins, counted, strict=True) if n}


def test_numbers_are_binned_by_deciles():
    (feature,) = frozen(Kind.DOUBLE, np.arange(1.0, 101)).features
    assert feature.counts == (0, 0, *[10] * 10, 0)
    assert feature.bins[2:5] == ("[1, 10]", "(10, 20]", "(20, 30]")
    assert counts(feature, np.array([0.5, 1, 10, 10.5, 100, 101, -math.inf, math.inf, math.nan])) == {
        "missing": 1,
        "below": 2,
        "[1, 10]": 2,
        "(10, 20]": 1,
        "(90, 100]": 1,
        "above": 2,
    }


@given(
    arrays(
        np.float64,
        st.integers(1, 200),
        elements=st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]),
    )
)
def test_every_row_of_any_reference_falls_into_a_bin_of_its_own_range(values):
    features = frozen(Kind.DOUBLE, values).features
    if np.isnan(values).all():
        assert features == ()
        return
    (feature,) = features
    assert sum(feature.counts) == len(values)
    assert feature.counts[0] == np.isnan(values).sum()
    if feature.edges:
        assert list(feature.edges) == sorted(set(feature.edges))
        assert (feature.counts[1], feature.counts[-1]) == (
            (values == -math.inf).sum(),
            (values == math.inf).sum(),
        )
        assert all(feature.counts[2:-1])
    assert len(set(feature.bins)) == len(feature.bins)


@pytest.mark.parametrize("share", [0.5, 0.16, 0.01])
def test_two_values_are_two_bins(share):
    values = np.repeat([0, 1], [int(1000 * (1 - share)), int(1000 * share)])
    (feature,) = frozen(Kind.LONG, values).features
    assert feature.bins == ("missing", "below", "[0, 0]", "(0, 1]", "above")
    assert feature.counts == (0, 0, int(1000 * (1 - share)), int(1000 * share), 0)


def test_integers_with_missing_values_are_numbers():
    (feature,) = frozen(Kind.LONG, texts(1, None, 2, 3)).features
    assert feature.counts[0] == 1
    assert counts(feature, texts(None, 2.0, 9)) == {"missing": 1, "(1, 2]": 1, "above": 1}


def test_categories_are_the_commonest_and_rare_ones_are_not_named():
    values = ["a"] * 60 + ["b"] * 36 + ["secret"] * 3 + [None, math.nan]
    (feature,) = frozen(Kind.STRING, texts(*values)).features
    assert feature.bins == ("missing", "a", "b", "other")
    assert feature.counts == (2, 60, 36, 3)
    counted = Binner(feature).count(texts("a", "secret", "new", None, float("nan")))
    assert (counted.bins.tolist(), counted.n_unknown) == ([2, 1, 0, 2], 1)


def test_ten_thousand_categories_make_no_drift():
    values = texts(*map(str, [f"id-{n}" for n in range(10_000)]))
    (feature,) = frozen(Kind.STRING, values).features
    assert feature.bins == ("missing", "other")
    assert feature.known is None
    assert Binner(feature).count(texts("id-x")).n_unknown == 0


def test_texts_that_are_numbers_are_binned_as_numbers():
    values = [str(n) for n in range(99)] + [" "]
    (feature,) = frozen(Kind.STRING, texts(*values)).features
    assert feature.counts == (1, 0, *[10] * 9, 9, 0)
    assert counts(feature, texts("1000", "k.A.", "5")) == {"above": 1, "missing": 1, feature.bins[2]: 1}


def test_names_of_bins_are_distinct_and_short():
    values = texts(*["missing", "other", "below", "'missing' (0)", "x" * 100, "x" * 99 + "y"] * 25)
    (feature,) = frozen(Kind.STRING, values).features
    assert len(set(feature.bins)) == 8
    assert [name for name in feature.bins if name in ("missing", "other", "below")] == ["missing", "other"]
    assert max(map(len, feature.bins)) < 50


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (Kind.BOOLEAN, np.array([True, True, False]), {"true": 2, "false": 1}),
        (
            Kind.DATETIME,
            np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"),
            {"missing": 1, "present": 1},
        ),
        (Kind.ARRAY, texts([1.0], None, [2.0]), {"missing": 1, "present": 2}),
        (Kind.BINARY, texts(b"a", b"b"), {"present": 2}),
        (Kind.DOUBLE, np.array([math.inf, math.nan]), {"missing": 1, "present": 1}),
    ],
)
def test_other_types_have_their_own_bins(kind, values, expected):
    (feature,) = frozen(kind, values).features
    assert counts(feature, values) == expected


def test_a_tensor_has_a_feature_for_each_number():
    features = frozen(Kind.TENSOR, np.arange(20.0).reshape(10, 2), dtype="float64", shape=(2,)).features
    assert [feature.name for feature in features] == ["x[0]", "x[1]"]
    assert [feature.sample[1] for feature in features] == [2, 3]


@pytest.mark.parametrize("kind", [Kind.DOUBLE, Kind.STRING, Kind.DATETIME])
def test_a_column_without_any_value_is_not_compared(kind):
    values = np.full(5, "NaT", dtype="datetime64[ns]") if kind is Kind.DATETIME else texts(*[None] * 5)
    assert frozen(kind, values).features == ()


X = np.arange(4.0)
P = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
P3 = np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]])


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            Output(labels=texts("no", "yes", "no", "yes"), probabilities=P),
            {"score": [0.1, 0.4, 0.5, 0.8], "label": []},
        ),
        (
            Output(labels=np.array([0, 2, 0, 2]), probabilities=P3),
            {"score": [0.4, 0.5, 0.7, 0.8], "label": []},
        ),
        (Output(values=X), {"value": [0, 1, 2, 3]}),
        (Output(values=np.stack([X, -X], axis=1)), {"value[0]": [0, 1, 2, 3], "value[1]": [-3, -2, -1, 0]}),
        (Output(labels=np.array([[0, 1]] * 4)), {"label[0]": [], "label[1]": []}),
        (Output(values=texts({}, {}, {}, {})), {}),
        (Output(labels=texts([1], [2], [1], [2])), {}),
        (None, {}),
    ],
)
def test_outputs_are_features(output, expected):
    found = [feature for feature in frozen(Kind.DOUBLE, X, output).features if feature.is_output]
    assert {feature.name: list(feature.sample) for feature in found} == expected


def test_one_row_is_a_reference_too():
    (feature,) = frozen(Kind.DOUBLE, np.array([5.0])).features
    assert feature.bins == ("missing", "below", "[5, 5]", "above")
    assert isinstance(Binner(feature).count(np.array([5.0])), Counted)
