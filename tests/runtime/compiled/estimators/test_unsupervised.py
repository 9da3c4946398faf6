"""IsolationForest and KMeans, compiled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.ensemble import IsolationForest

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from tests.runtime.compiled.edges import assert_identical, edge_rows, features, to_frame, tree_thresholds
from tests.runtime.compiled.parity import FEW, SEEDS, compiled, frames, to_data


@FEW
@given(SEEDS, st.sampled_from([1.0, 0.5]), st.sampled_from(["auto", 0.1]))
def test_isolation_forests_are_the_same_to_the_last_bit(seed, max_features, contamination):
    rng = np.random.default_rng(seed)
    matrix = features(rng)
    model = IsolationForest(
        n_estimators=int(rng.integers(1, 25)),
        max_samples=int(rng.integers(2, 30)),
        max_features=max_features,
        contamination=contamination,
        random_state=seed % 1000,
    ).fit(to_frame(matrix))
    thresholds = [np.zeros(0)] * matrix.shape[1]
    if max_features == 1.0:
        thresholds = tree_thresholds([one.tree_ for one in model.estimators_], matrix.shape[1])
    rows = edge_rows(rng, matrix, thresholds, missing=True)
    rows[0], rows[1, 0] = np.inf, -1e38
    assert_identical(model, to_frame(rows))
    node = compiled(model, to_data(to_frame(matrix)))
    assert np.array_equal(node.decision(to_data(to_frame(rows))), model.decision_function(to_frame(rows)))


def test_an_isolation_forest_of_single_rows_is_not_compiled():
    frame = to_frame(np.random.default_rng(0).normal(size=(30, 2)))
    model = IsolationForest(n_estimators=2, max_samples=1).fit(frame)
    with pytest.raises(NotCompiled, match="one row"):
        compile_predictor(model, to_data(frame))


@FEW
@given(frames(), st.integers(1, 9), st.sampled_from([KMeans, MiniBatchKMeans]), SEEDS)
def test_the_nearest_centre_is_the_originals(frame, n_clusters, kind, seed):
    model = kind(n_clusters, n_init=1, random_state=seed % 1000).fit(frame)
    assert_identical(model, frame)
    moved = frame.sample(frac=1, random_state=0).reset_index(drop=True) * 2 + 1
    assert_identical(model, moved.astype(frame.dtypes.to_dict()))


def test_other_numbers_than_the_centres_are_refused_as_by_the_original():
    frame = to_frame(np.random.default_rng(0).normal(size=(30, 2)))
    model = KMeans(2, n_init=1, random_state=0).fit(frame)
    node = compiled(model, to_data(frame))
    for odd in (frame.astype(np.float32), frame.replace(frame.iloc[0, 0], np.nan)):
        with pytest.raises(ValueError, match=r"."):
            model.predict(odd)
        with pytest.raises(ValueError, match=r"."):
            node.output(to_data(odd))
