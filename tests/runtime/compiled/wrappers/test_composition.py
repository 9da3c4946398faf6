"""`serving.runtime.compiled.wrappers.composition`: pipelines, column transformers, unions; and the short cut for one row."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from serving.runtime.compiled.data import Columns, NotCompiled
from serving.runtime.compiled.nodes import compile_predictor
from serving.runtime.compiled.plan import load_plan, save_plan
from serving.runtime.compiled.wrappers.composition import ChainPredictor

CITIES = ["Rome", "Oslo", "Bern"]
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 90, 200),
        "income": RNG.normal(50_000, 20_000, 200),
        "city": pd.Series(RNG.choice(CITIES, 200), dtype="str"),
        "plan": pd.Series(RNG.choice(["a", "b"], 200), dtype="str"),
    }
)
LABELS = RNG.integers(0, 2, 200)
NUMBERS, TEXTS = ["age", "income"], ["city", "plan"]


def columns_of(frame: pd.DataFrame) -> Columns:
    arrays = [
        column.astype(object).where(column.notna(), None).to_numpy()
        if pd.api.types.is_string_dtype(column)
        else column.to_numpy()
        for _, column in frame.items()
    ]
    return Columns(tuple(frame), arrays)


def compiled(model: Any, folder: Path, frame: pd.DataFrame = FRAME) -> Any:
    save_plan(compile_predictor(model, columns_of(frame.head(20))), folder / "plan")
    return load_plan(folder / "plan")


def assert_same(model: Any, predictor: Any, frame: pd.DataFrame) -> None:
    np.testing.assert_array_equal(
        predictor.output(columns_of(frame)).probabilities, model.predict_proba(frame)
    )


@pytest.mark.parametrize(
    "front",
    [
        ColumnTransformer([("n", StandardScaler(), NUMBERS), ("t", OneHotEncoder(), TEXTS)]),
        ColumnTransformer([("n", "passthrough", NUMBERS), ("t", "drop", TEXTS)]),
        ColumnTransformer([("t", OrdinalEncoder(), TEXTS)], remainder="passthrough"),
        ColumnTransformer([("t", OneHotEncoder(), ["plan"])], remainder=make_pipeline(SimpleImputer(strategy="most_frequent"), OrdinalEncoder())),
        ColumnTransformer([("n", StandardScaler(), NUMBERS), ("t", OneHotEncoder(), TEXTS)], transformer_weights={"n": 0.5}),
        ColumnTransformer([("n", StandardScaler(), make_column_selector(dtype_include=np.number))]),
        ColumnTransformer([("n", StandardScaler(), [1, 0]), ("t", OrdinalEncoder(), slice(2, 4))]),
        Pipeline([("outer", ColumnTransformer([("n", FeatureUnion([("s", StandardScaler()), ("m", MinMaxScaler())]), NUMBERS)])), ("poly", PolynomialFeatures(2))]),
        ColumnTransformer([("n", make_pipeline(SimpleImputer(), RobustScaler()), NUMBERS), ("t", make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore")), TEXTS)]),
    ],
    ids=lambda front: type(front).__name__,
)  # fmt: skip
def test_pipelines_of_all_shapes_say_what_the_original_says(front: Any, tmp_path: Path) -> None:
    model = make_pipeline(front, RandomForestClassifier(10, random_state=0)).fit(FRAME, LABELS)
    predictor = compiled(model, tmp_path)

    assert_same(model, predictor, FRAME)
    for row in range(5):
        assert_same(model, predictor, FRAME.iloc[[row]])


def test_columns_are_found_by_name_whatever_their_order_and_company(tmp_path: Path) -> None:
    front = ColumnTransformer([("n", StandardScaler(), NUMBERS), ("t", OneHotEncoder(), TEXTS)])
    model = make_pipeline(front, LogisticRegression()).fit(FRAME, LABELS)
    other = FRAME.assign(extra=1.0)[["plan", "extra", "income", "city", "age"]]

    predictor = compiled(model, tmp_path, other)

    np.testing.assert_allclose(
        predictor.output(columns_of(other)).probabilities, model.predict_proba(FRAME), rtol=0, atol=1e-15
    )


def test_a_column_that_is_missing_is_not_compiled() -> None:
    front = ColumnTransformer([("n", StandardScaler(), NUMBERS)])
    model = make_pipeline(front, LogisticRegression()).fit(FRAME, LABELS)
    with pytest.raises(NotCompiled, match="not in its input"):
        compile_predictor(model, columns_of(FRAME.drop(columns="age")))


def test_a_scaler_that_was_fitted_on_other_columns_is_not_compiled() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[NUMBERS], LABELS)
    with pytest.raises(NotCompiled, match="other columns"):
        compile_predictor(model, columns_of(FRAME[["income", "age"]]))


def test_names_survive_a_step_that_returns_a_frame(tmp_path: Path) -> None:
    scaler = StandardScaler().set_output(transform="pandas")
    front = ColumnTransformer([("n", "passthrough", ["income"])])
    model = make_pipeline(scaler, front, LogisticRegression()).fit(FRAME[NUMBERS], LABELS)
    assert_same(model, compiled(model, tmp_path, FRAME[NUMBERS]), FRAME[NUMBERS])


def front_of_cells() -> Any:
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), MinMaxScaler())
    text = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(handle_unknown="ignore")
    )
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return ColumnTransformer([("n", numeric, NUMBERS), ("t", text, ["city"]), ("o", ordinal, ["plan"])])


MODEL = make_pipeline(front_of_cells(), RandomForestClassifier(10, random_state=0)).fit(FRAME, LABELS)
PREDICTOR = compile_predictor(MODEL, columns_of(FRAME.head(20)))

numbers = st.one_of(
    st.floats(allow_infinity=False), st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, 2.0**53 + 2])
)


@given(
    age=st.integers(-(2**63), 2**63 - 1),
    income=numbers,
    city=st.sampled_from([*CITIES, "Atlantis", "", None]),
    plan=st.sampled_from(["a", "b", "c"]),
)
def test_one_row_is_the_same_by_its_cells_and_by_arrays_to_the_last_bit(
    age: int, income: float, city: str | None, plan: str
) -> None:
    assert isinstance(PREDICTOR, ChainPredictor)
    assert PREDICTOR.n_cells == 0
    row = Columns(
        ("age", "income", "city", "plan"),
        [np.array([age]), np.array([income]), *(np.array([text], dtype=object) for text in (city, plan))],
    )
    by_cells = PREDICTOR._transform(row)
    by_arrays: Any = row
    for step in PREDICTOR.steps:
        by_arrays = step.transform(by_arrays)

    np.testing.assert_array_equal(by_cells, by_arrays)
    assert np.array_equal(np.signbit(by_cells), np.signbit(by_arrays))


def test_a_row_that_cells_cannot_tell_is_refused_as_arrays_are() -> None:
    strict = make_pipeline(
        ColumnTransformer([("n", StandardScaler(), NUMBERS), ("t", OneHotEncoder(), TEXTS)]),
        LogisticRegression(),
    ).fit(FRAME, LABELS)
    predictor = compile_predictor(strict, columns_of(FRAME.head(20)))
    row = FRAME.head(1).assign(city=pd.Series(["Atlantis"], dtype="str"))
    with pytest.raises(ValueError, match="unknown"):
        predictor.output(columns_of(row))


def test_float32_columns_take_no_short_cut() -> None:
    small = FRAME.assign(income=FRAME["income"].astype(np.float32))
    model = make_pipeline(front_of_cells(), RandomForestClassifier(5, random_state=0)).fit(small, LABELS)
    predictor: Any = compile_predictor(model, columns_of(small.head(20)))
    assert predictor.n_cells is None
