"""`serving.prepare.compiling`: what is compiled, compared with the original, and what is left to it and why."""

import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from preprocessing import preprocess
from scripts.training.columns import column_kinds
from scripts.training.pipeline import build_pipeline
from serving.model.schema import Inputs, Schema, parse_schema
from serving.prepare.checks import parity
from serving.prepare.checks.generated import generate_groups
from serving.prepare.checks.parity import MAX_DIFFERENCE
from serving.prepare.compiling import compile_model, is_rowwise, rows_on_thresholds
from serving.runtime import Output
from serving.runtime.compiled.data import NotCompiled, as_matrix
from serving.runtime.compiled.estimators.leaves import LeafFinder
from serving.runtime.compiled.nodes import Transformer, compiles_transformer, nodes_of
from serving.runtime.compiled.plan import load_plan
from serving.runtime.mixed import MixedRuntime
from serving.runtime.native import NativeRuntime, adapter_of
from tests.support.environment import ROOT, TELCO

needs_telco = pytest.mark.skipif(not TELCO.is_file(), reason=f"the Telco churn file is not at {TELCO}")


def people(n_rows: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n_rows),
            "income": rng.normal(50_000, 20_000, n_rows),
            "city": pd.Series(rng.choice(["Rome", "Oslo", "Bern"], n_rows), dtype="str"),
        }
    )
    return frame, (frame["age"] + rng.normal(0, 20, n_rows) > 50).to_numpy()


def inputs_json(frame: pd.DataFrame) -> str:
    return str(infer_signature(frame).to_dict()["inputs"])


def signature_of(frame: pd.DataFrame) -> Schema:
    return parse_schema(inputs_json(frame))


def inputs_of(frame: pd.DataFrame) -> Inputs:
    columns = tuple(
        column.astype(object).where(column.notna(), None).to_numpy()
        if pd.api.types.is_string_dtype(column)
        else column.to_numpy()
        for _, column in frame.items()
    )
    return Inputs(columns, len(frame))


def compile_people(model: Any, tmp_path: Path) -> Any:
    frame, labels = people()
    model.fit(frame, labels)
    schema = signature_of(frame)
    return compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(frame), tmp_path / "plan"
    )


def columns_transformer(handle_unknown: str = "ignore") -> Any:
    return make_column_transformer(
        (StandardScaler(), ["age", "income"]), (OneHotEncoder(handle_unknown=handle_unknown), ["city"])
    )


@pytest.fixture
def few_single_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a group that is refused, fewer rows are asked one by one, which takes most of the time of a comparison."""
    monkeypatch.setattr(parity, "MAX_SINGLE_ROWS", 10)


@needs_telco
@pytest.mark.usefixtures("few_single_rows")
def test_what_train_registers_is_compiled_whole_and_says_the_same(tmp_path: Path) -> None:
    """The linear one; `tests/http/test_telco.py` asks a service with the forest."""
    table = pd.read_csv(TELCO)
    inputs, target = table.drop(columns="Churn"), table["Churn"]
    pipeline = build_pipeline(preprocess, column_kinds(preprocess(inputs)), "classification", "linear")
    pipeline.fit(inputs, target)
    schema = signature_of(inputs)

    compiled = compile_model(
        NativeRuntime(adapter_of(pipeline), schema), schema, inputs_of(inputs.head(1000)), tmp_path / "plan"
    )

    assert compiled.native_steps == []
    assert compiled.reason is None
    assert compiled.parity.rows >= 10_000
    assert compiled.parity.max_abs_difference <= 1e-12
    output = compiled.runtime.predict(inputs_of(inputs), {})
    assert output.probabilities is not None
    assert output.labels is not None
    np.testing.assert_allclose(output.probabilities, pipeline.predict_proba(inputs), rtol=0, atol=1e-12)
    assert output.labels.tolist() == pipeline.predict(inputs).tolist()


@pytest.mark.usefixtures("few_single_rows")
@pytest.mark.parametrize("estimator", ["linear", "forest", "boosting"])
def test_dates_texts_and_numbers_as_categories_are_compiled_whole(estimator: str, tmp_path: Path) -> None:
    random, n = np.random.default_rng(0), 300
    inputs = pd.DataFrame(
        {
            "day": pd.date_range("2024-01-01", periods=n, freq="31h").astype("datetime64[ns]"),
            "shop": random.integers(1, 9, n),
            "review": [
                f"{word} staff, visit {i}"
                for i, word in enumerate(random.choice(["good", "bad", "so so"], n))
            ],
            "zip": random.choice(["01067", "10115"], n),
            "paid": np.where(random.random(n) < 0.1, np.nan, random.uniform(5, 99, n)),
        }
    )
    inputs.loc[::20, "day"] = pd.NaT
    if estimator != "linear":  # behind a vectorizer, a forest is left to the library
        inputs = inputs.drop(columns="review")
    target = random.random(n) < 0.5
    kinds = column_kinds(preprocess(inputs), {"shop": "category", "review": "text"})
    pipeline = build_pipeline(preprocess, kinds, "classification", estimator).fit(inputs, target)
    schema = signature_of(inputs)

    compiled = compile_model(
        NativeRuntime(adapter_of(pipeline), schema), schema, inputs_of(inputs), tmp_path / "plan"
    )

    assert (compiled.native_steps, compiled.reason) == ([], None)
    assert compiled.parity.max_abs_difference <= 1e-12
    output = compiled.runtime.predict(inputs_of(inputs), {})
    np.testing.assert_allclose(output.probabilities, pipeline.predict_proba(inputs), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("few_single_rows")
def test_a_compiled_model_is_answered_without_the_libraries_that_trained_it(tmp_path: Path) -> None:
    compile_people(make_pipeline(columns_transformer(), RandomForestClassifier(10, random_state=0)), tmp_path)
    code = f"""
import sys, numpy as np
from pathlib import Path
from serving.runtime import load_runtime
from serving.model.schema import Inputs, parse_schema
schema = parse_schema({inputs_json(people()[0])!r})
runtime = load_runtime("compiled", Path({str(tmp_path)!r}), schema, None, n_threads=1)
rows = Inputs((np.array([40]), np.array([5e4]), np.array(["Rome"], dtype=object)), 1)
print(runtime.predict(rows, {{}}).probabilities.shape)
print(sorted({{"sklearn", "scipy", "pandas", "mlflow", "onnx", "pyarrow", "joblib"}} & set(sys.modules)))
"""
    (tmp_path / "plan").rename(tmp_path / "compiled")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["(1, 2)", "[]"], done.stderr


def test_unknown_categories_are_refused_by_both(tmp_path: Path) -> None:
    model = make_pipeline(columns_transformer(handle_unknown="error"), LogisticRegression())
    compiled = compile_people(model, tmp_path)

    assert compiled.parity.rows_refused > 0
    stranger = Inputs((np.array([40]), np.array([5e4]), np.array(["Atlantis"], dtype=object)), 1)
    with pytest.raises(ValueError, match="unknown"):
        compiled.runtime.predict(stranger, {})


class Halver(TransformerMixin, BaseEstimator):
    """A step with a compiled form that the tests choose."""

    def fit(self, X: Any, y: Any = None) -> "Halver":
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X, dtype=float) / 2


@dataclass
class Halved(Transformer):
    """Wrong in one of several ways."""

    fault: str

    def transform(self, data: Any) -> Any:
        out = as_matrix(data).astype(float) / 2
        if self.fault == "offset":
            out[:, 0] += 1e-3
        if self.fault == "extremes":
            out = out.clip(-1e6, 1e6)
        if self.fault == "refuses" and (out < -1e4).any():
            raise ValueError("too small")
        if self.fault == "alone" and len(out) == 1:
            out += 1
        if self.fault == "nan":
            out = np.nan_to_num(out)
        return out


def compile_halver(fault: str, tmp_path: Path) -> Any:
    compiles_transformer("tests.Halver")(lambda fitted, sample: Halved(fault))
    frame, _ = people()
    numbers = frame[["age", "income"]]
    model = make_pipeline(Halver(), LinearRegression()).fit(numbers, numbers["age"] * 3.0)
    schema = signature_of(numbers)
    return compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(numbers), tmp_path / "plan"
    )


def test_the_gate_lets_a_right_one_through(tmp_path: Path) -> None:
    assert compile_halver("", tmp_path).parity.max_abs_difference <= MAX_DIFFERENCE


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("offset", "parity: rows with the sample's values differ by up to 0.00"),
        ("extremes", "parity: rows with extreme numbers differ"),
        ("refuses", "only the compiled model refuses one (ValueError)"),
        ("nan", "parity: .* only the original model refuses one"),
        ("alone", "a row with the sample's values gets a different answer alone than among others"),
    ],
)
def test_the_gate_stops_a_wrong_one_and_says_where(fault: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(NotCompiled) as stopped:
        compile_halver(fault, tmp_path)
    assert re.search(reason if ".*" in reason else re.escape(reason), str(stopped.value))


def test_a_sum_that_cancels_out_as_in_the_original_is_compiled(tmp_path: Path) -> None:
    """1e300 - 1e300 + 2^53 is 0 or 2^53, by the order of the terms, and BLAS takes another for one row than for many."""
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=["a", "b", "c"])
    model = LinearRegression().fit(rows, rows.sum(axis=1))
    schema = signature_of(rows)
    compiled = compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(rows), tmp_path / "plan"
    )
    assert compiled.native_steps == []


def to_square(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(age=rows["age"] ** 2)


def double(matrix: Any) -> Any:
    return np.hstack([matrix, matrix * 2])


@pytest.mark.usefixtures("few_single_rows")
def test_a_strange_step_stays_wherever_it_is_and_the_rest_is_compiled(tmp_path: Path) -> None:
    model = make_pipeline(
        FunctionTransformer(to_square),
        columns_transformer(),
        FunctionTransformer(double),
        RandomForestClassifier(10, random_state=0),
    )
    compiled = compile_people(model, tmp_path)

    assert compiled.native_steps == ["functiontransformer-1", "functiontransformer-2"]
    assert compiled.reason == (
        "step 'functiontransformer-1': the function to_square is the model's own code; "
        "step 'functiontransformer-2': the function double is the model's own code"
    )
    assert compiled.parity.rows_on_thresholds == 2000
    frame, _ = people()
    output = compiled.runtime.predict(inputs_of(frame), {})
    np.testing.assert_array_equal(output.probabilities, model.predict_proba(frame))


class Cautious(LogisticRegression):
    """An estimator of the user's own with probabilities."""

    def predict_proba(self, X: Any) -> Any:
        return (super().predict_proba(X) + 1) / 3


def halve(rows: pd.DataFrame) -> pd.DataFrame:
    return rows / 2


def length(rows: pd.Series) -> Any:
    return rows.str.len().to_numpy()[:, np.newaxis]


@pytest.mark.usefixtures("few_single_rows")
def test_of_a_column_transformer_only_the_branches_that_need_it_stay_native(tmp_path: Path) -> None:
    inner = make_pipeline(StandardScaler(), FunctionTransformer(halve))
    front = make_column_transformer(
        (inner, ["age"]),
        (OneHotEncoder(), ["city"]),
        (FunctionTransformer(length), "city"),
        (StandardScaler(), ["income"]),
    )
    model = make_pipeline(front, RandomForestClassifier(5, random_state=0))
    compiled = compile_people(model, tmp_path)

    assert compiled.native_steps == [
        "columntransformer__pipeline__functiontransformer",
        "columntransformer__functiontransformer",
    ]
    frame, _ = people()
    output = compiled.runtime.predict(inputs_of(frame), {})
    np.testing.assert_array_equal(output.probabilities, model.predict_proba(frame))
    # As a worker does it: from the plan, and the model as it was stored.
    schema = signature_of(frame)
    again = MixedRuntime(pickle.loads(pickle.dumps(model)), load_plan(tmp_path / "plan"), schema)
    np.testing.assert_array_equal(again.predict(inputs_of(frame), {}).probabilities, output.probabilities)


@pytest.mark.usefixtures("few_single_rows")
def test_a_column_transformer_of_nothing_that_compiles_stays_whole(tmp_path: Path) -> None:
    front = make_column_transformer(
        (FunctionTransformer(halve), ["age", "income"]), (FunctionTransformer(length), "city")
    )
    compiled = compile_people(make_pipeline(front, LogisticRegression()), tmp_path)

    assert compiled.native_steps == ["columntransformer"]
    assert compiled.reason == (
        "step 'columntransformer': the function halve is the model's own code; "
        "the function length is the model's own code"
    )


@pytest.mark.usefixtures("few_single_rows")
def test_a_member_of_an_ensemble_stays_native_alone(tmp_path: Path) -> None:
    members = [
        ("forest", make_pipeline(columns_transformer(), RandomForestClassifier(5, random_state=0))),
        ("own", make_pipeline(columns_transformer(), Cautious())),
    ]
    compiled = compile_people(VotingClassifier(members, voting="soft"), tmp_path)
    assert compiled.native_steps == ["cautious"]


@pytest.mark.usefixtures("few_single_rows")
@pytest.mark.parametrize("around", ["search", "frozen", "search of a search", "threshold"])
def test_what_is_around_a_pipeline_does_not_keep_it_native(around: str, tmp_path: Path) -> None:
    pipeline = make_pipeline(columns_transformer(), RandomForestClassifier(5, random_state=0))
    search = GridSearchCV(pipeline, {"randomforestclassifier__max_depth": [3]}, cv=2)
    model: Any = search
    if around == "frozen":
        model = FrozenEstimator(pipeline.fit(*people()))
    elif around == "search of a search":
        model = GridSearchCV(search, {"cv": [2]}, cv=2)
    elif around == "threshold":
        model = FixedThresholdClassifier(search, threshold=0.3)
    compiled = compile_people(model, tmp_path)

    assert compiled.reason is None
    if around != "threshold":
        assert compiled.parity.rows_on_thresholds == 2000
    frame, _ = people()
    output = compiled.runtime.predict(inputs_of(frame), {})
    np.testing.assert_array_equal(output.probabilities, model.predict_proba(frame))


@pytest.mark.usefixtures("few_single_rows")
def test_the_steps_of_a_pipeline_inside_a_search_are_compiled_one_by_one(tmp_path: Path) -> None:
    pipeline = make_pipeline(columns_transformer(), Guesser())
    compiled = compile_people(GridSearchCV(pipeline, {"memory": [None]}, cv=2), tmp_path)
    assert compiled.native_steps == ["guesser"]


@pytest.mark.parametrize(
    "function", [np.log, np.log1p, np.sqrt, np.arctanh, np.reciprocal], ids=lambda f: f.__name__
)
def test_a_function_that_refuses_other_numbers_is_compiled(function: Any, tmp_path: Path) -> None:
    """Made-up rows lie where the real ones do, or the original would refuse nearly all of them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(0.01, 0.99, size=(50, 3)), columns=list("abc"))
    model = make_pipeline(FunctionTransformer(function), LinearRegression()).fit(frame, frame["a"])
    schema = signature_of(frame)
    compiled = compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(frame), tmp_path / "plan"
    )
    assert compiled.native_steps == []
    assert compiled.parity.rows >= 10_000


class Guesser(ClassifierMixin, BaseEstimator):
    """An estimator of the user's own."""

    def fit(self, X: Any, y: Any) -> "Guesser":
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.classes_[0])


def test_an_estimator_of_the_users_own_is_left_to_its_library(tmp_path: Path) -> None:
    with pytest.raises(NotCompiled, match=r"^Guesser has no compiled form$"):
        compile_people(make_pipeline(Guesser()), tmp_path)


@pytest.mark.usefixtures("few_single_rows")
def test_the_steps_before_an_estimator_of_the_users_own_are_compiled(tmp_path: Path) -> None:
    compiled = compile_people(make_pipeline(columns_transformer(), Guesser()), tmp_path)

    assert compiled.native_steps == ["guesser"]
    assert compiled.runtime.predict(inputs_of(people()[0]), {}).labels.tolist() == [False] * 300


@pytest.mark.usefixtures("few_single_rows")
def test_a_subclass_of_a_known_estimator_is_not_taken_for_it(tmp_path: Path) -> None:
    class Moody(LogisticRegression):
        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X)[:, ::-1]

    compiled = compile_people(make_pipeline(columns_transformer(), Moody()), tmp_path)

    assert compiled.native_steps == ["moody"]
    assert compiled.reason == "step 'moody': Moody has no compiled form"


def test_generated_rows_cover_what_may_come() -> None:
    frame, _ = people()
    frame["score"] = np.linspace(0, 1, len(frame))
    schema = signature_of(frame)
    groups = {
        group.name: group.inputs for group in generate_groups(schema, inputs_of(frame), ["Rome", "Paris"])
    }

    assert sum(inputs.n_rows for inputs in groups.values()) >= 10_000
    city, income = schema.names.index("city"), schema.names.index("income")
    assert {"Paris", ""} <= set(groups["unknown texts"].columns[city])
    assert any(cell != cell for cell in groups["missing values"].columns[city])  # noqa: PLR0124  # NaN
    assert np.isnan(groups["missing values"].columns[income]).any()
    assert np.abs(groups["extreme numbers"].columns[income]).max() > 1e9
    assert np.abs(groups["overflowing numbers"].columns[income]).max() == 1e300
    age = groups["overflowing numbers"].columns[schema.names.index("age")]
    assert age.dtype == np.int64


def test_rows_are_put_onto_the_thresholds_of_the_trees_and_next_to_them(tmp_path: Path) -> None:
    frame, labels = people()
    numbers = frame[["age", "income"]]
    model = RandomForestClassifier(5, random_state=0).fit(numbers, labels)
    schema = signature_of(numbers)
    compiled = compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(numbers), tmp_path / "plan"
    )
    assert compiled.parity.rows_on_thresholds == 2000

    thresholds = {
        (int(feature), float(value))
        for tree in model.estimators_
        for feature, value in zip(tree.tree_.feature, tree.tree_.threshold, strict=True)
        if feature >= 0
    }
    finders = [
        node
        for node in nodes_of(compiled.runtime._predictor)  # type: ignore[attr-defined]
        if isinstance(node, LeafFinder)
    ]
    rows = rows_on_thresholds(numbers.to_numpy(dtype=float), finders)
    exact = [(c, v) for c in (0, 1) for v in rows[:, c] if (c, v) in thresholds]
    assert len(exact) > 1000
    near = {np.nextafter(np.float32(v), np.float32(s)) for _, v in thresholds for s in (-np.inf, np.inf)}
    assert sum(np.float32(v) in near for v in rows[:, 1]) > 200


class Answering:
    """A native runtime whose model is a function of the inputs."""

    model = None

    def __init__(self, function: Any) -> None:
        self.function = function

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:
        return Output(values=self.function(inputs.columns[0]))


NUMBER = parse_schema('[{"type": "double", "name": "number", "required": true}]')


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda column: column * 2, True),
        (lambda column: column - column.mean(), False),
        (lambda column: np.arange(len(column)), False),
        (lambda column: column.astype(str).astype(object), True),
        (lambda column: np.where(np.isnan(column), np.nanmax([0, *column]), column), False),
    ],
    ids=["by row", "mean of all rows", "position", "text by row", "missing values from other rows"],
)
def test_whether_rows_are_independent_is_tried(function: Any, expected: bool) -> None:
    sample = Inputs((np.array([1.0, 5.0, 2.0, 9.0]),), 4)
    assert is_rowwise(Answering(function), NUMBER, sample) is expected  # type: ignore[arg-type]


def test_one_row_is_enough_to_make_others_from() -> None:
    one = Inputs((np.array([1.0]),), 1)
    assert is_rowwise(Answering(lambda column: column), NUMBER, one) is True  # type: ignore[arg-type]
    assert is_rowwise(Answering(lambda column: column - column.mean()), NUMBER, one) is False  # type: ignore[arg-type]


def test_of_a_model_with_one_answer_for_all_nothing_can_be_told() -> None:
    sample = Inputs((np.array([1.0, 5.0, 2.0, 9.0]),), 4)
    constant = Answering(lambda column: np.zeros(len(column)))
    assert is_rowwise(constant, NUMBER, sample) is False  # type: ignore[arg-type]


@pytest.mark.usefixtures("few_single_rows")
def test_a_row_of_the_sample_that_the_original_refuses_is_left_out(tmp_path: Path) -> None:
    frame, labels = people(60)
    model = make_pipeline(columns_transformer(handle_unknown="error"), LogisticRegression())
    model.fit(frame, labels)
    schema = signature_of(frame)
    frame.loc[8, "city"] = "Atlantis"

    compiled = compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(frame), tmp_path / "plan"
    )

    assert compiled.parity.rows >= 10_000


@pytest.mark.usefixtures("few_single_rows")
def test_whole_numbers_that_are_categories_are_compiled(tmp_path: Path) -> None:
    frame, labels = people()
    frame["senior"] = np.arange(len(frame)) % 2
    front = make_column_transformer((StandardScaler(), ["income"]), (OneHotEncoder(), ["senior", "city"]))
    model = make_pipeline(front, LogisticRegression()).fit(frame, labels)
    schema = signature_of(frame)

    compiled = compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(frame), tmp_path / "plan"
    )

    assert compiled.parity.rows >= 10_000


def test_a_wide_sparse_matrix_is_not_filled_in(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": pd.Series([f"word{n} and word{n + 1}" for n in range(2000)], dtype="str")})
    model = make_pipeline(
        FunctionTransformer(first_column), CountVectorizer(), LogisticRegression(max_iter=5, tol=10)
    )
    model.fit(frame, np.arange(2000) % 2)
    schema = signature_of(frame)
    compiled = compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(frame), tmp_path / "plan"
    )
    assert compiled.native_steps == ["functiontransformer", "countvectorizer"]
    got = compiled.runtime.predict(inputs_of(frame), {})
    np.testing.assert_allclose(got.probabilities, model.predict_proba(frame), rtol=0, atol=1e-12)


def test_what_fills_in_no_sparse_matrix_gets_it_as_its_library_does(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": pd.Series([f"word{n} and word{n + 1}" for n in range(200)], dtype="str")})
    front = make_column_transformer((CountVectorizer(), "text"))
    model = make_pipeline(front, RandomForestClassifier(5, random_state=0)).fit(frame, np.arange(200) % 2)
    schema = signature_of(frame)
    compiled = compile_model(
        NativeRuntime(adapter_of(model), schema), schema, inputs_of(frame), tmp_path / "plan"
    )
    assert compiled.native_steps == ["randomforestclassifier"]
    got = compiled.runtime.predict(inputs_of(frame), {})
    np.testing.assert_array_equal(got.probabilities, model.predict_proba(frame))


def first_column(rows: pd.DataFrame) -> Any:
    return rows.iloc[:, 0]


def to_decades(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(age=pd.cut(rows["age"], [-np.inf, 30, 60, np.inf]).astype("category"))


@pytest.mark.usefixtures("few_single_rows")
def test_frames_pass_between_strange_steps_as_they_are(tmp_path: Path) -> None:
    front = make_column_transformer((StandardScaler(), ["income"]), (OneHotEncoder(), ["age", "city"]))
    model = make_pipeline(FunctionTransformer(to_decades), front, RandomForestClassifier(5, random_state=0))
    compiled = compile_people(model, tmp_path)

    frame, _ = people()
    output = compiled.runtime.predict(inputs_of(frame), {})
    np.testing.assert_array_equal(output.probabilities, model.predict_proba(frame))
    assert compiled.native_steps
