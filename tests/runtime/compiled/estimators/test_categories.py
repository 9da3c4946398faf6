"""Boosters fitted on pandas' `category` columns, asked with what a signature has for these: text, numbers, booleans."""

import json
import pickle
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from mlflow.models import infer_signature
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serving.errors import ModelRefused
from serving.model.schema import Inputs, Schema, parse_schema
from serving.runtime.categories import lightgbm_categories, xgboost_categories
from serving.runtime.compiled import inputs_to_data
from serving.runtime.compiled.data import NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from serving.runtime.native import NativeRuntime, adapter_of
from tests.runtime.compiled.edges import assert_same_bits
from tests.runtime.compiled.parity import FEW, SEEDS, compiled, to_data

VALUES: dict[str, list[Any]] = {
    "text": ["a", "b", "cc", "", "nan", "1", "x y"],
    "text in an order": ["low", "medium", "high"],
    "numbers": [7, -3, 10, 2, 500],
    "small numbers": [3, 1, 2],
    "many": [f"v{i}" for i in range(80)],
    "other letters": ["Übergröße", "ß", "日本"],
    "booleans": [True, False],
    "fractions": [0.5, 2.0, -1.25],
}
ONLY_LIGHTGBM = {"other letters", "booleans", "fractions"}
"""XGBoost refuses to be fitted on these, or writes them down wrongly."""


def category_frame(rng: np.random.Generator, kinds: list[str], n_rows: int = 150) -> pd.DataFrame:
    """Columns of categories with numbers between them, and cells that are missing."""
    columns: dict[str, Any] = {}
    for position, kind in enumerate(kinds):
        known = VALUES[kind][: int(rng.integers(2, len(VALUES[kind]) + 1))]
        cells = pd.Series(rng.choice(len(known), n_rows)).map(dict(enumerate(known)))
        dtype = pd.CategoricalDtype(
            known if rng.random() < 0.5 else sorted(known), ordered=kind == "text in an order"
        )
        if kind == "small numbers":
            dtype = pd.CategoricalDtype(pd.Index(sorted(known), dtype=rng.choice(["int8", "int16", "int32"])))
        columns[f"c{position}"] = cells.where(rng.random(n_rows) < 0.9, None).astype(dtype)
        if rng.random() < 0.5:
            plain = [rng.normal(size=n_rows), rng.integers(-2, 90, n_rows), rng.random(n_rows) < 0.5]
            columns[f"n{position}"] = plain[int(rng.integers(3))]
    return pd.DataFrame(columns)


def as_requested(
    frame: pd.DataFrame, rng: np.random.Generator, schema: Schema
) -> tuple[Inputs, pd.DataFrame]:
    """Rows with unknown categories in them: as they arrive, and with the categories of the fit."""
    arrived, meant = [], frame.copy()
    for name, kind in zip(frame.columns, schema.columns, strict=True):
        column = frame[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            arrived.append(column.to_numpy())
            continue
        known = column.cat.categories
        unknown = {"O": "unknown", "i": 12345, "u": 99, "b": None, "f": 77.5}
        cells = column.astype(object).where(column.notna(), None)
        strange = rng.random(len(frame)) < 0.2
        other = unknown["O" if known.dtype.kind not in "iubf" else known.dtype.kind]
        cells = cells.where(~strange, other)
        meant[name] = column.where(~pd.Series(strange, index=frame.index), None)
        if kind.type.kind in ("long", "integer", "double"):
            numbers = cells.to_numpy(dtype=np.float64, na_value=np.nan)
            is_whole = kind.type.kind != "double" and not np.isnan(numbers).any()
            arrived.append(numbers.astype(np.int64) if is_whole else numbers)
        else:
            arrived.append(cells.to_numpy(dtype=object))
    return Inputs(tuple(arrived), len(frame)), meant


def assert_served(model: Any, frame: pd.DataFrame, rng: np.random.Generator) -> None:
    """Native and compiled say what the library says of a frame with the categories of the fit."""
    model = pickle.loads(pickle.dumps(model))
    schema = parse_schema(infer_signature(frame).to_dict()["inputs"])
    inputs, meant = as_requested(frame, rng, schema)
    native = NativeRuntime(adapter_of(model), schema)
    node = compiled(model, inputs_to_data(inputs, schema))
    for start, stop in ((0, len(frame)), *((row, row + 1) for row in range(6))):
        rows = Inputs(tuple(column[start:stop] for column in inputs.columns), stop - start)
        expected = adapter_of(model).predict(meant.iloc[start:stop], {})
        assert_same_bits(expected, native.predict(rows, {}))
        assert_same_bits(expected, node.output(inputs_to_data(rows, schema)))


def truth(frame: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    codes = [c.cat.codes if isinstance(c.dtype, pd.CategoricalDtype) else c for _, c in frame.items()]
    return sum(np.sin(np.asarray(c, dtype=float)) for c in codes) + rng.normal(size=len(frame)) / 4


def drawn_kinds(rng: np.random.Generator, kinds: list[str]) -> list[str]:
    return [str(kind) for kind in rng.choice(kinds, size=int(rng.integers(1, 5)))]


@FEW
@given(SEEDS, st.sampled_from(["classifier", "regressor", "several", "booster"]))
def test_lightgbm(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    frame = category_frame(rng, ["text", *drawn_kinds(rng, list(VALUES))])
    y = truth(frame, rng)
    chosen = {"min_child_samples": 2, "min_data_per_group": 1, "cat_smooth": 1.0, "verbose": -1, "n_jobs": 1}
    chosen |= {"max_cat_to_onehot": int(rng.integers(1, 9)), "n_estimators": int(rng.integers(1, 15))}
    if kind == "regressor":
        model = lightgbm.LGBMRegressor(**chosen).fit(frame, y)
    elif kind == "booster":
        n_trees = chosen.pop("n_estimators")
        data = lightgbm.Dataset(frame, (y > 0) * 1.0, params={"verbose": -1})
        model = lightgbm.train(chosen | {"objective": "binary"}, data, n_trees)
    else:
        labels = (y > 0) * 1 if kind == "classifier" else np.digitize(y, [-0.5, 0.5])
        model = lightgbm.LGBMClassifier(**chosen).fit(frame, labels)
    assert_served(model, frame, rng)


@FEW
@given(SEEDS, st.sampled_from(["classifier", "regressor", "several", "booster"]))
def test_xgboost(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    frame = category_frame(rng, drawn_kinds(rng, [kind for kind in VALUES if kind not in ONLY_LIGHTGBM]))
    y = truth(frame, rng)
    chosen = {"max_cat_to_onehot": int(rng.integers(1, 9)), "n_estimators": int(rng.integers(1, 15))}
    chosen |= {"enable_categorical": True, "n_jobs": 1, "max_depth": 4, "tree_method": "hist"}
    if rng.random() < 0.2:
        chosen["booster"] = "dart"
    if rng.random() < 0.2:
        chosen["missing"] = float(rng.choice([0.0, 1.0]))
    if kind == "regressor":
        model = xgboost.XGBRegressor(**chosen).fit(frame, y)
    elif kind == "booster":
        data = xgboost.DMatrix(frame, (y > 0) * 1.0, enable_categorical=True)
        parameters = {
            "objective": "binary:logistic",
            "nthread": 1,
            "max_cat_to_onehot": chosen["max_cat_to_onehot"],
        }
        model = xgboost.train(parameters, data, chosen["n_estimators"])
    else:
        labels = (y > 0) * 1 if kind == "classifier" else np.digitize(y, [-0.5, 0.5])
        if len(np.unique(labels)) != labels.max() + 1:
            return
        model = xgboost.XGBClassifier(**chosen).fit(frame, labels)
    assert_served(model, frame, rng)


def plain(n_rows: int = 120) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "colour": pd.Categorical(rng.choice(["red", "green", "blue"], n_rows)),
            "size": rng.normal(size=n_rows),
            "number": pd.Categorical(rng.choice([30, 10, 20], n_rows)),
        }
    )
    return frame, truth(frame, rng)


def small(model: Any) -> Any:
    return model.set_params(n_estimators=5, n_jobs=1)


SMALL = [
    small(lightgbm.LGBMClassifier(verbose=-1, min_child_samples=3)),
    small(xgboost.XGBClassifier(enable_categorical=True)),
]


@pytest.mark.parametrize("booster", SMALL, ids=lambda booster: type(booster).__name__)
@pytest.mark.parametrize("around", ["search", "calibration", "votes", "steps"])
def test_models_around_boosters(around: str, booster: Any) -> None:
    frame, y = plain()
    model: Any = GridSearchCV(booster, {"n_estimators": [4]}, cv=2)
    if around == "calibration":
        model = CalibratedClassifierCV(booster, cv=2)
    elif around == "votes":
        model = VotingClassifier([("a", booster), ("b", clone(booster))], voting="soft")
    elif around == "steps":
        scale = make_column_transformer((StandardScaler(), ["size"]), remainder="passthrough")
        model = make_pipeline(scale.set_output(transform="pandas"), booster)
    assert_served(model.fit(frame, (y > 0) * 1), frame, np.random.default_rng(1))


@pytest.mark.parametrize("booster", SMALL, ids=lambda booster: type(booster).__name__)
def test_a_signature_of_text_for_categories_of_numbers(booster: Any) -> None:
    frame, y = plain()
    model = clone(booster).fit(frame, (y > 0) * 1)
    schema = parse_schema(infer_signature(frame.astype({"number": str})).to_dict()["inputs"])
    types = {"colour": object, "size": np.float64, "number": str}
    columns = tuple(frame[name].astype(type_).to_numpy() for name, type_ in types.items())
    inputs = Inputs(columns, len(frame))
    expected = model.predict_proba(frame)
    assert np.array_equal(
        NativeRuntime(adapter_of(model), schema).predict(inputs, {}).probabilities, expected
    )
    data = inputs_to_data(inputs, schema)
    np.testing.assert_array_equal(compiled(model, data).output(data).probabilities, expected)


def test_xgboost_that_was_fitted_on_codes() -> None:
    rng = np.random.default_rng(0)
    matrix = np.column_stack([rng.integers(0, 6, 200), rng.normal(size=200)])
    model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, enable_categorical=True, feature_types=["c", "q"])
    model.fit(matrix, np.isin(matrix[:, 0], [1, 4]) + matrix[:, 1])
    odd = np.column_stack([[-1, -0.5, -0.0, 0.5, 4.9, 6, 33, 1e9, np.inf, -np.inf, np.nan], np.zeros(11)])
    rows = np.concatenate([matrix, odd])
    np.testing.assert_array_equal(compiled(model, matrix[:3]).output(rows).values, model.predict(rows))


def test_what_the_file_of_lightgbm_does_not_tell() -> None:
    """Numbers in an order may be categories or not: only the count of lists is known."""
    rng = np.random.default_rng(0)
    grade = pd.Categorical(rng.integers(0, 4, 200), ordered=True)
    frame = pd.DataFrame({"grade": grade, "number": rng.integers(0, 4, 200), "size": rng.normal(size=200)})
    model = lightgbm.LGBMRegressor(n_estimators=5, n_jobs=1, verbose=-1).fit(frame, frame["size"])
    schema = parse_schema(infer_signature(frame).to_dict()["inputs"])
    with pytest.raises(ModelRefused, match="does not say"):
        NativeRuntime(adapter_of(model), schema)
    model.fit(frame.drop(columns="number"), frame["size"])
    assert list(lightgbm_categories(model.booster_, ["i", "f"])) == [0]


def test_lightgbm_takes_labels_that_are_numbers_for_positions() -> None:
    """So that it splits another column by categories than the one that has them."""
    frame, y = plain()
    frame.columns = [0, 2, 1]
    model = lightgbm.LGBMRegressor(n_estimators=9, n_jobs=1, verbose=-1, min_child_samples=3).fit(frame, y)
    assert_served(model, frame, np.random.default_rng(1))


def test_categories_that_xgboost_cuts_off_are_refused() -> None:
    frame, y = plain()
    frame["colour"] = frame["colour"].cat.rename_categories({"red": "größer"})
    model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, enable_categorical=True).fit(frame, y)
    schema = parse_schema(infer_signature(frame).to_dict()["inputs"])
    with pytest.raises(ModelRefused, match="ASCII"):
        NativeRuntime(adapter_of(model), schema)


def test_xgboost_without_categories_in_its_file_is_refused() -> None:
    frame, y = plain()
    booster = xgboost.XGBRegressor(n_estimators=5, enable_categorical=True).fit(frame, y).get_booster()
    document = json.loads(bytes(booster.save_raw("json")))
    # Before 3.1 there were none.
    del document["learner"]["gradient_booster"]["model"]["cats"]
    with pytest.raises(ModelRefused, match=r"3\.1"):
        xgboost_categories(Saved(document, booster.feature_types), ["O", "f", "i"])


class Saved:
    """A Booster as an earlier version has written it."""

    def __init__(self, document: Any, feature_types: list[str]) -> None:
        self.document, self.feature_types = document, feature_types

    def save_raw(self, raw_format: str) -> bytes:
        return json.dumps(self.document).encode()


@pytest.mark.parametrize("booster", SMALL, ids=lambda booster: type(booster).__name__)
def test_other_text_is_not_compiled(booster: Any) -> None:
    frame, y = plain()
    model = clone(booster).fit(frame.drop(columns="colour"), (y > 0) * 1)
    with pytest.raises((NotCompiled, ModelRefused)):
        compile_predictor(model, to_data(frame[["colour", "size"]].astype({"colour": object})))
