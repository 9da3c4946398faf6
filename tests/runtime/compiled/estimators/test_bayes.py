import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.parity import FEW, assert_same, compiled, difference, frames, targets, to_data


@FEW
@given(st.data())
def test_gaussian(data):
    frame = data.draw(frames())
    y = data.draw(targets(frame))
    smoothing = data.draw(st.sampled_from([1e-9, 1e-3]))
    assert_same(GaussianNB(var_smoothing=smoothing).fit(frame, y), frame)


@pytest.mark.parametrize("kind", [MultinomialNB, ComplementNB])
@FEW
@given(data=st.data())
def test_counts(kind, data):
    frame = data.draw(frames(("double", "float", "long"))).abs() + 1
    y = data.draw(targets(frame))
    # Of a single column, the original divides by zero as it normalises.
    can_norm = kind is ComplementNB and frame.shape[1] > 1
    options = {"norm": data.draw(st.booleans())} if can_norm else {}
    model = kind(alpha=data.draw(st.sampled_from([0.1, 1.0])), **options)
    assert_same(model.fit(frame, y), frame)


def test_multinomial_takes_negative_numbers_at_predict_as_the_original_does():
    frame = pd.DataFrame({"a": [1.0, 2.0, 0.0, 3.0], "b": [0.0, 1.0, 5.0, 2.0]})
    model = MultinomialNB().fit(frame, ["x", "x", "y", "z"])
    assert_same(model, -frame)


@FEW
@given(st.data())
def test_bernoulli(data):
    frame = data.draw(frames())
    y = data.draw(targets(frame))
    threshold = data.draw(st.sampled_from([0.0, 0.3, None]))
    if threshold is None:
        frame = (frame > 0).astype(data.draw(st.sampled_from([np.float64, np.int64, np.bool_])))
    prior = data.draw(st.booleans())
    assert_same(BernoulliNB(binarize=threshold, fit_prior=prior).fit(frame, y), frame)


@FEW
@given(st.data())
def test_categorical(data):
    frame = (data.draw(frames(("double", "long"))) % 5).astype(
        data.draw(st.sampled_from([np.float64, np.int64]))
    )
    y = data.draw(targets(frame))
    assert_same(CategoricalNB(min_categories=6, alpha=0.5).fit(frame, y), frame)


@FEW
@given(st.data())
def test_quadratic_discriminant(data):
    frame = data.draw(frames(("double", "float"))).iloc[:, :3]
    y = data.draw(targets(frame))
    model = QuadraticDiscriminantAnalysis(reg_param=0.1).fit(frame, y)
    assert_same(model, frame)
    rows = to_data(frame)
    assert difference(model.decision_function(frame), compiled(model, rows).decision(rows)) <= 1e-12


@pytest.mark.parametrize(("value", "error"), [(-1.0, ValueError), (7.0, IndexError), (np.nan, ValueError)])
def test_a_category_that_is_none_is_refused_as_the_original_does(value, error):
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 1.0], "b": [0.0, 1.0, 1.0, 0.0]})
    model = CategoricalNB().fit(frame, [0, 1, 1, 0])
    node = compiled(model, to_data(frame))
    frame.loc[2, "a"] = value
    with pytest.raises(error):
        model.predict(frame)
    with pytest.raises(error):
        node.output(to_data(frame))


@pytest.mark.parametrize("kind", [GaussianNB, MultinomialNB, ComplementNB, BernoulliNB])
def test_a_missing_number_is_refused_by_both(kind):
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 1.0], "b": [0.0, 1.0, 1.0, 0.0]})
    model = kind().fit(frame, [0, 1, 1, 0])
    node = compiled(model, to_data(frame))
    frame.loc[2, "a"] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.predict(frame)
    with pytest.raises(ValueError, match="NaN"):
        node.output(to_data(frame))


def test_certain_columns_are_not_compiled():
    frame = pd.DataFrame({"a": [1.0, 1.0, 0.0, 0.0], "b": [0.0, 1.0, 1.0, 0.0]})
    model = BernoulliNB(alpha=1e-300, force_alpha=True).fit(frame, [0, 0, 1, 1])
    with pytest.raises(NotCompiled):
        compile_predictor(model, to_data(frame))
