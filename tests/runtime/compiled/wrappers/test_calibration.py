import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.parity import FEWER, assert_same, frames, targets, to_data

BASES = {
    "logistic": lambda: LogisticRegression(max_iter=10),
    "bayes": GaussianNB,
    "svc": lambda: LinearSVC(max_iter=50),
    "pipeline": lambda: make_pipeline("passthrough", LogisticRegression(max_iter=10)),
}


def fit(model, frame, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frame, y)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("name", BASES)
@FEWER
@given(data=st.data())
def test_one_calibrator_per_class(name, method, data):
    frame = data.draw(frames())
    y = data.draw(targets(frame))
    ensemble = data.draw(st.booleans())
    model = CalibratedClassifierCV(BASES[name](), method=method, cv=3, ensemble=ensemble)
    assert_same(fit(model, frame, y), frame)


@pytest.mark.parametrize("name", BASES)
@FEWER
@given(data=st.data())
def test_temperature(name, data):
    frame = data.draw(frames())
    # Other numbers than 0, 1, 2 … are taken for positions by scikit-learn 1.9.1, past the end of its memory.
    y = np.unique(data.draw(targets(frame)), return_inverse=True)[1]
    y = np.array(["a", "b", "c", "d"])[y] if data.draw(st.booleans()) else y
    ensemble = data.draw(st.booleans())
    model = CalibratedClassifierCV(BASES[name](), method="temperature", cv=3, ensemble=ensemble)
    assert_same(fit(model, frame, y), frame)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_a_classifier_that_was_fitted_before(method):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 3)), columns=list("abc"))
    y = np.arange(120) % 3
    base = FrozenEstimator(LogisticRegression().fit(frame, y))
    assert_same(CalibratedClassifierCV(base, method=method).fit(frame, y), frame)


def test_rows_without_any_probability_are_uniform():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 2)), columns=list("ab"))
    model = CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=2).fit(frame, np.arange(120) % 3)
    for part in model.calibrated_classifiers_:
        for calibrator in part.calibrators:
            calibrator.y_thresholds_ = np.zeros_like(calibrator.y_thresholds_)
            calibrator._build_f(calibrator.X_thresholds_, calibrator.y_thresholds_)
    assert np.allclose(model.predict_proba(frame), 1 / 3)
    assert_same(model, frame)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_a_forest(method):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 3)), columns=list("abc"))
    for n_classes in (2, 3):
        base = RandomForestClassifier(5, random_state=0)
        model = CalibratedClassifierCV(base, method=method, cv=2).fit(frame, np.arange(120) % n_classes)
        assert_same(model, frame)


@pytest.mark.parametrize("method", ["auto", "predict_proba", "decision_function"])
@FEWER
@given(data=st.data())
def test_a_given_threshold(method, data):
    frame = data.draw(frames())
    y = data.draw(targets(frame, n_classes=2))
    positive = data.draw(st.sampled_from([None, *np.unique(y).tolist()]))
    threshold = data.draw(st.sampled_from(["auto", 0.2, 0.7, -0.5]))
    model = FixedThresholdClassifier(
        LogisticRegression(), threshold=threshold, pos_label=positive, response_method=method
    )
    assert_same(fit(model, frame, y), frame)


@pytest.mark.parametrize("base", [LogisticRegression, GaussianNB, RidgeClassifier])
@FEWER
@given(data=st.data())
def test_a_tuned_threshold(base, data):
    frame = data.draw(frames(("double",)))
    y = data.draw(targets(frame, n_classes=2))
    model = TunedThresholdClassifierCV(base(), scoring="balanced_accuracy", cv=3, thresholds=20)
    assert_same(fit(model, frame, y), frame)


def test_a_base_without_compiled_form_is_not_compiled():
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
    model = CalibratedClassifierCV(SVC(), cv=2).fit(frame, np.arange(20) % 2)
    with pytest.raises(NotCompiled):
        compile_predictor(model, to_data(frame))
