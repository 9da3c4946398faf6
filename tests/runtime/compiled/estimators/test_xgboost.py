import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from xgboost import XGBClassifier, XGBRanker, XGBRegressor, XGBRFClassifier, XGBRFRegressor

from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from serving.runtime.native import _XgboostBooster
from tests.runtime.compiled.edges import (
    assert_identical,
    assert_same_bits,
    edge_rows,
    features,
    target,
    to_frame,
)
from tests.runtime.compiled.parity import FEW, SEEDS, compiled, to_data

REGRESSION = [
    "reg:squarederror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
]
ESTIMATORS = [XGBClassifier, XGBRegressor, XGBRFClassifier, XGBRFRegressor]


def labels(rng, matrix, kind):
    out = target(rng, matrix, kind())
    return np.unique(out, return_inverse=True)[1] if "Classifier" in kind.__name__ else out


def settings(rng):
    """From the dice."""
    out = {
        "n_estimators": int(rng.integers(1, 20)),
        "max_depth": int(rng.integers(1, 6)),
        "tree_method": str(rng.choice(["hist", "exact", "approx"])),
        "n_jobs": 1,
    }
    if rng.random() < 0.2:
        out["base_score"] = float(rng.choice([0.3, 0.77]))
    return out


def fitted(rng, kind, matrix, **more):
    chosen = settings(rng) | more
    if "RF" not in kind.__name__:
        chosen["learning_rate"] = float(rng.choice([0.1, 0.3, 1.0]))
        if rng.random() < 0.25:
            chosen |= {"booster": "dart", "rate_drop": 0.3, "tree_method": "hist"}
        elif rng.random() < 0.2:
            chosen["num_parallel_tree"] = 3
    else:
        chosen["tree_method"] = "hist"
    y = labels(rng, matrix, kind)
    if "Classifier" not in kind.__name__:
        objective = str(rng.choice(REGRESSION))
        chosen["objective"] = objective
        if objective == "reg:quantileerror":
            chosen |= {"quantile_alpha": 0.7, "tree_method": "hist"}
    elif y.max() == 1:
        chosen["objective"] = str(rng.choice(["binary:logistic", "binary:hinge"]))
    elif rng.random() < 0.3:
        chosen["objective"] = "multi:softmax"
    if rng.random() < 0.3 and "RF" not in kind.__name__:
        model = kind(**chosen, early_stopping_rounds=2)
        return model.fit(to_frame(matrix), y, eval_set=[(to_frame(matrix), y[::-1].copy())], verbose=False)
    return kind(**chosen).fit(to_frame(matrix), y)


def thresholds(booster, n_features):
    table = booster.trees_to_dataframe()
    table = table[table["Feature"] != "Leaf"]
    names = booster.feature_names or [f"f{i}" for i in range(n_features)]
    return [table.loc[table["Feature"] == name, "Split"].to_numpy() for name in names]


@FEW
@given(SEEDS, st.sampled_from(ESTIMATORS), st.booleans())
def test_estimators_are_the_same_to_the_last_bit(seed, kind, missing):
    rng = np.random.default_rng(seed)
    matrix = features(rng, missing=missing)
    model = fitted(rng, kind, matrix)
    rows = edge_rows(rng, matrix, thresholds(model.get_booster(), matrix.shape[1]), missing=missing)
    rows[0], rows[1, 0] = np.inf, -1e308
    assert_identical(model, to_frame(rows))
    with np.errstate(over="ignore"):
        assert_identical(model, to_frame(rows.astype(np.float32)))


@pytest.mark.parametrize("objective", ["rank:ndcg", "rank:map", "rank:pairwise"])
def test_rankers_are_the_same_to_the_last_bit(objective):
    rng = np.random.default_rng(0)
    matrix = features(rng, missing=True)
    relevant = (np.nan_to_num(matrix[:, 0]) > np.nanmedian(matrix[:, 0])).astype(np.int64)
    groups = np.arange(len(matrix)) // 8
    model = XGBRanker(objective=objective, n_jobs=1, n_estimators=9).fit(
        to_frame(matrix), relevant, qid=groups
    )
    rows = edge_rows(rng, matrix, thresholds(model.get_booster(), matrix.shape[1]), missing=True)
    assert_identical(model, to_frame(rows))


@FEW
@given(
    SEEDS,
    st.sampled_from(["binary:logistic", "binary:logitraw", "multi:softprob", "multi:softmax", *REGRESSION]),
    st.sampled_from(["gbtree", "dart"]),
)
def test_boosters_are_the_same_to_the_last_bit(seed, objective, booster):
    rng = np.random.default_rng(seed)
    matrix = features(rng, missing=True)
    y = np.nan_to_num(matrix[:, 0]) + rng.normal(size=len(matrix))
    parameters = {"objective": objective, "booster": booster, "nthread": 1}
    if objective == "reg:quantileerror":
        parameters["quantile_alpha"] = 0.3
    if booster == "dart":
        parameters["rate_drop"] = 0.3
    if objective.startswith("multi"):
        parameters["num_class"] = 4
        y = np.argsort(np.argsort(y)) % 4
    elif objective.startswith("binary"):
        y = y > np.median(y)
    else:
        y = np.exp(np.clip(y, -5, 5))
    model = xgboost.train(parameters, xgboost.DMatrix(to_frame(matrix), y), int(rng.integers(1, 20)))
    rows = to_frame(edge_rows(rng, matrix, thresholds(model, matrix.shape[1]), missing=True))
    node = compiled(model, to_data(rows))
    assert_same_bits(_XgboostBooster(model).predict(rows, {}), node.output(to_data(rows)))
    assert_same_bits(_XgboostBooster(model).predict(rows[:1], {}), node.output(to_data(rows[:1])))


def test_another_number_stands_for_missing():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(200, 3)).round(1)
    matrix[rng.random(matrix.shape) < 0.2] = -0.1
    model = XGBRegressor(n_estimators=9, missing=-0.1, n_jobs=1).fit(to_frame(matrix), matrix.sum(axis=1))
    matrix[0, 0] = np.nan
    assert_identical(model, to_frame(matrix))


def test_a_matrix():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(200, 3))
    model = XGBClassifier(n_estimators=9, n_jobs=1).fit(matrix, (matrix[:, 0] > 0) + (matrix[:, 1] > 0))
    node = compiled(model, matrix[:2])
    assert np.array_equal(node.output(matrix).probabilities, model.predict_proba(matrix))


def test_a_booster_refuses_infinity_where_an_estimator_does_not():
    rng = np.random.default_rng(0)
    frame = to_frame(rng.normal(size=(100, 2)))
    model = XGBRegressor(n_estimators=3, n_jobs=1).fit(frame, frame["x0"])
    node = compiled(model.get_booster(), to_data(frame))
    for odd in (np.inf, 1e39):
        rows = frame.head(3).copy()
        rows.iloc[1, 1] = odd
        assert_identical(model, rows)
        with pytest.raises(ValueError, match="inf"):
            _XgboostBooster(model.get_booster()).predict(rows, {})
        with pytest.raises(ValueError, match="inf"):
            node.output(to_data(rows))


def test_what_is_not_compiled():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 2))
    frame = to_frame(matrix)
    linear = XGBRegressor(booster="gblinear", n_estimators=2).fit(matrix, matrix[:, 0])
    several = XGBRegressor(n_estimators=2).fit(matrix, matrix)
    leaves = XGBRegressor(n_estimators=2, multi_strategy="multi_output_tree").fit(matrix, matrix)
    for model in (linear, several, leaves):
        with pytest.raises(NotCompiled):
            compile_predictor(model, matrix[:2])
    named = XGBRegressor(n_estimators=2).fit(frame, frame["x0"]).get_booster()
    with pytest.raises(NotCompiled, match="columns"):
        compile_predictor(named, matrix)
    with pytest.raises(NotCompiled, match="columns"):
        compile_predictor(named, to_data(frame[["x1", "x0"]]))
