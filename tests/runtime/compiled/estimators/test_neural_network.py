import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neural_network import MLPClassifier, MLPRegressor

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.parity import FEW, assert_same, compiled, frames, targets, to_data, values

ACTIVATIONS = st.sampled_from(["identity", "logistic", "tanh", "relu"])
LAYERS = st.lists(st.integers(1, 12), max_size=3).map(tuple)
SOLVERS = st.sampled_from(["adam", "sgd", "lbfgs"])


def fit(model, frame, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frame, y)


@FEW
@given(st.data())
def test_classifiers(data):
    frame = data.draw(frames(("double", "float", "long", "mixed")))
    model = MLPClassifier(
        data.draw(LAYERS),
        data.draw(ACTIVATIONS),
        solver=data.draw(SOLVERS),
        max_iter=5,
        learning_rate_init=1e-4,
    )
    assert_same(fit(model, frame, data.draw(targets(frame))), frame)


@FEW
@given(st.data())
def test_regressors_of_one_and_several_targets(data):
    frame = data.draw(frames(("double", "float", "long", "mixed")))
    frame = (frame - frame.mean()) / (frame.std() + 1e-9)
    loss = data.draw(st.sampled_from(["squared_error", "poisson"]))
    model = MLPRegressor(
        loss, data.draw(LAYERS), data.draw(ACTIVATIONS), solver=data.draw(SOLVERS), max_iter=5,
        learning_rate_init=1e-4,
    )  # fmt: skip
    y = data.draw(values(frame, n_targets=data.draw(st.integers(0, 3)), positive=loss == "poisson"))
    assert_same(fit(model, frame, y), frame)


def test_a_missing_number_is_refused_by_both():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 1.0], "b": [0.0, 1.0, 1.0, 0.0]})
    model = fit(MLPRegressor(hidden_layer_sizes=(2,), max_iter=2), frame, [0.0, 1.0, 1.0, 0.0])
    node = compiled(model, to_data(frame))
    frame.loc[2, "a"] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.predict(frame)
    with pytest.raises(ValueError, match="NaN"):
        node.output(to_data(frame))


def test_several_labels_per_row_are_not_compiled():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 1.0], "b": [0.0, 1.0, 1.0, 0.0]})
    model = fit(MLPClassifier((2,), max_iter=2), frame, np.array([[0, 1], [1, 0], [1, 1], [0, 0]]))
    with pytest.raises(NotCompiled):
        compile_predictor(model, to_data(frame))
