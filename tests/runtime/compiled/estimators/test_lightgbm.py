import lightgbm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightgbm import LGBMClassifier, LGBMRanker, LGBMRegressor

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from serving.runtime.native import _LightgbmBooster
from tests.runtime.compiled.edges import (
    assert_identical,
    assert_same_bits,
    edge_rows,
    features,
    target,
    to_frame,
)
from tests.runtime.compiled.parity import FEW, SEEDS, assert_same, compiled, to_data

REGRESSION = [
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "quantile",
    "mape",
    "poisson",
    "gamma",
    "tweedie",
]


def settings(rng):
    """From the dice."""
    out = {
        "num_leaves": int(rng.integers(2, 20)),
        "min_child_samples": int(rng.integers(1, 6)),
        "min_data_in_bin": 1,
        "learning_rate": float(rng.choice([0.1, 0.3, 1.0])),
        "verbose": -1,
        "num_threads": 1,
        "zero_as_missing": bool(rng.random() < 0.3),
        "use_missing": bool(rng.random() < 0.8),
        "seed": 0,
    }
    boosting = str(rng.choice(["gbdt", "gbdt", "dart", "rf"]))
    if boosting == "rf":
        out |= {"bagging_fraction": 0.6, "bagging_freq": 1}
    return out | {"boosting": boosting}


def some_zeros(rng, matrix):
    matrix = matrix.copy()
    matrix[rng.random(matrix.shape) < 0.2 * rng.integers(2)] = 0.0
    return matrix


def thresholds(booster, n_features):
    table = booster.trees_to_dataframe()
    table = table[table["decision_type"] == "<="]
    names = booster.feature_name()
    found = [table.loc[table["split_feature"] == name, "threshold"] for name in names]
    return [one.to_numpy(dtype=np.float64) for one in found]


def fitted(rng, kind, frame, matrix, **more):
    chosen = settings(rng)
    aliases = {"num_threads": "n_jobs", "seed": "random_state", "boosting": "boosting_type"}
    others = {"min_data_in_bin", "zero_as_missing", "use_missing", "bagging_fraction", "bagging_freq"}
    own = {aliases.get(key, key): value for key, value in chosen.items() if key not in others}
    own |= {"n_estimators": int(rng.integers(1, 20))}
    if own["boosting_type"] == "rf":
        own |= {"subsample": 0.6, "subsample_freq": 1}
    y = target(rng, matrix, kind())
    if kind is LGBMRegressor:
        own["objective"] = str(rng.choice(REGRESSION))
    elif len(np.unique(y)) > 2 and rng.random() < 0.3:
        own["objective"] = "multiclassova"
    return kind(**own).fit(frame, y, **more)


@FEW
@given(SEEDS, st.sampled_from([LGBMClassifier, LGBMRegressor]), st.booleans())
def test_estimators_are_the_same_to_the_last_bit(seed, kind, missing):
    rng = np.random.default_rng(seed)
    matrix = some_zeros(rng, features(rng, missing=missing))
    model = fitted(rng, kind, to_frame(matrix), matrix)
    rows = edge_rows(rng, matrix, thresholds(model.booster_, matrix.shape[1]), missing=True)
    rows[0], rows[1, 0] = np.inf, -1e308
    assert_identical(model, to_frame(rows))
    with np.errstate(over="ignore"):
        assert_identical(model, to_frame(rows.astype(np.float32)))


@pytest.mark.parametrize("objective", ["lambdarank", "rank_xendcg"])
def test_rankers_are_the_same_to_the_last_bit(objective):
    rng = np.random.default_rng(0)
    matrix = some_zeros(rng, features(rng, missing=True))
    relevant = (np.nan_to_num(matrix[:, 0]) > np.nanmedian(matrix[:, 0])).astype(np.int64)
    model = LGBMRanker(objective=objective, n_jobs=1, n_estimators=9, min_child_samples=2, verbose=-1)
    model.fit(to_frame(matrix), relevant, group=[len(matrix)])
    rows = edge_rows(rng, matrix, thresholds(model.booster_, matrix.shape[1]), missing=True)
    assert_identical(model, to_frame(rows))


@FEW
@given(
    SEEDS,
    st.sampled_from(["binary", "multiclass", "multiclassova", "cross_entropy", *REGRESSION]),
    st.booleans(),
)
def test_boosters_are_the_same_to_the_last_bit(seed, objective, with_categories):
    rng = np.random.default_rng(seed)
    matrix = some_zeros(rng, features(rng, missing=True))
    matrix[:, 0] = rng.integers(0, int(rng.integers(2, 70)), size=len(matrix))
    y = (matrix[:, 0] % 3) + rng.normal(size=len(matrix))
    parameters = settings(rng) | {"objective": objective, "sigmoid": float(rng.choice([1.0, 0.7]))}
    parameters |= {"min_data_per_group": 1, "cat_smooth": 1.0, "max_cat_to_onehot": int(rng.integers(1, 9))}
    if objective.startswith("multi"):
        parameters["num_class"] = 3
        y = np.argsort(np.argsort(y)) * 3 // len(y)
    elif objective in ("binary", "cross_entropy"):
        y = (y > np.median(y)) * 1.0
    else:
        y = np.exp(np.clip(y, -5, 5))
    if objective == "regression":
        parameters["reg_sqrt"] = bool(rng.integers(2))
    frame = to_frame(matrix)
    columns = [0] if with_categories else []
    data = lightgbm.Dataset(frame, y, categorical_feature=columns, params={"verbose": -1} | parameters)
    model = lightgbm.train(parameters, data, int(rng.integers(1, 20)))
    rows = edge_rows(rng, matrix, thresholds(model, matrix.shape[1]), missing=True)
    rows[2:20, 0] = [
        -1,
        -0.5,
        -0.0,
        0.5,
        1.9,
        2.9999,
        31,
        32,
        33,
        64,
        99,
        1e9,
        2**31,
        2**32,
        1e300,
        np.inf,
        -np.inf,
        3,
    ]
    rows = to_frame(rows)
    node = compiled(model, to_data(rows))
    assert_same_bits(_LightgbmBooster(model).predict(rows, {}), node.output(to_data(rows)))
    for one in (rows[:1], rows[5:6]):
        assert_same_bits(_LightgbmBooster(model).predict(one, {}), node.output(to_data(one)))


def test_the_best_iteration_is_the_last_that_counts():
    rng = np.random.default_rng(0)
    frame = to_frame(rng.normal(size=(300, 3)))
    y = frame["x0"] + rng.normal(size=300)
    model = LGBMRegressor(n_estimators=60, learning_rate=0.5, verbose=-1, n_jobs=1)
    stop = lightgbm.early_stopping(3, verbose=False)
    model.fit(frame[:200], y[:200], eval_X=frame[200:], eval_y=y[200:], callbacks=[stop])
    assert 0 < model.best_iteration_ < 60
    assert_identical(model, frame)


def test_what_is_not_compiled():
    rng = np.random.default_rng(0)
    frame = to_frame(rng.normal(size=(80, 2)))
    quiet = {"n_estimators": 2, "verbose": -1, "n_jobs": 1}
    linear = LGBMRegressor(**quiet, linear_tree=True).fit(frame, frame["x0"])
    early = LGBMRegressor(**quiet, pred_early_stop=True).fit(frame, frame["x0"])
    own = LGBMRegressor(**quiet, objective=lambda y, p: (p - y, np.ones_like(y))).fit(frame, frame["x0"])
    for model in (linear, early, own):
        with pytest.raises(NotCompiled):
            compile_predictor(model, to_data(frame))


@pytest.mark.parametrize("kind", [LGBMClassifier, LGBMRegressor])
def test_names_with_blanks_are_no_other_columns(kind):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(80, 2)), columns=["petal length (cm)", "petal width (cm)"])
    model = kind(n_estimators=3, verbose=-1, n_jobs=1).fit(frame, frame.iloc[:, 0] > 0)
    assert list(model.feature_names_in_) != list(frame.columns)
    for rows in (frame, frame[frame.columns[::-1]]):
        assert_same(model, rows)
