"""A model that predicts is served, whatever it takes the rows as, and however many results it has."""

import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from serving.errors import ModelRefused, ModelRefusedInput
from tests.support.logged import Logged, answers, log_sklearn, log_with

X, Y = load_wine(return_X_y=True, as_frame=True)
TEXTS = ["a good one", "a bad one", "good", "bad and worse"] * 10
IS_GOOD = [1, 0, 1, 0] * 10
HERE = __name__


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers, prepares and loads a model."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return Logged(tmp_path).serve


class Sampler(BaseEstimator):
    """What imbalanced-learn's samplers are: steps for fitting only, which cannot transform."""

    def fit_resample(self, rows: Any, targets: Any) -> Any:
        return rows, targets


class SamplingPipeline(Pipeline):
    """What imbalanced-learn's pipeline is: one that leaves out its samplers as it predicts."""

    def _without_samplers(self) -> Pipeline:
        return Pipeline([(name, step) for name, step in self.steps if not isinstance(step, Sampler)])

    def fit(self, rows: Any, targets: Any) -> Any:
        self._without_samplers().fit(rows, targets)
        return self

    def predict(self, rows: Any) -> Any:
        return self._without_samplers().predict(rows)

    def predict_proba(self, rows: Any) -> Any:
        return self._without_samplers().predict_proba(rows)


class Doubled(TransformerMixin, BaseEstimator):
    """A stateless transformer of a team's own, which nothing shows to be fitted."""

    def fit(self, rows: Any, targets: Any = None) -> Any:  # scikit-learn's own names differ
        return self

    def transform(self, rows: Any) -> Any:
        return np.asarray(rows) * 2


@pytest.mark.parametrize(
    "model",
    [
        SamplingPipeline(
            [("scale", StandardScaler()), ("sample", Sampler()), ("last", LogisticRegression())]
        ),
        SamplingPipeline(
            [("sample", Sampler()), ("scale", StandardScaler()), ("last", LogisticRegression())]
        ),
        make_pipeline(StandardScaler(), Doubled(), LogisticRegression()),
        make_pipeline("passthrough", Doubled(), LogisticRegression()),
        make_pipeline(None, LogisticRegression()),
        GridSearchCV(make_pipeline(Doubled(), LogisticRegression()), {}, cv=2),
    ],
    ids=lambda model: "-".join(name for name, _ in getattr(model, "steps", [("search", 0)])),
)
def test_a_pipeline_is_asked_as_it_predicts_itself(serve: Any, model: Any) -> None:
    model.fit(X, Y)
    own = f"{HERE}.Sampler,{HERE}.SamplingPipeline,{HERE}.Doubled"
    log = log_sklearn(model, signature=infer_signature(X, model.predict(X)), input_example=X.head(10))
    for loaded in serve(log, trusted_types=own):
        got = [list(one["probabilities"].values()) for one in answers(loaded, X.to_dict("records"))]
        np.testing.assert_allclose(got, model.predict_proba(X), rtol=0, atol=1e-12)


class Lowered(TransformerMixin, BaseEstimator):
    """A step that takes a series of texts."""

    def fit(self, texts: Any, targets: Any = None) -> Any:
        return self

    def transform(self, texts: Any) -> Any:
        return [text.lower() for text in texts]


TEXT_MODELS = [
    make_pipeline(TfidfVectorizer(), LogisticRegression()),
    make_pipeline(HashingVectorizer(n_features=32), LogisticRegression()),
    make_pipeline(Lowered(), CountVectorizer(), LogisticRegression()),
    make_pipeline(make_union(CountVectorizer(), TfidfVectorizer()), LogisticRegression()),
    GridSearchCV(make_pipeline(CountVectorizer(), LogisticRegression()), {}, cv=2),
]


@pytest.mark.parametrize("name", [None, "review"])
@pytest.mark.parametrize(
    "model", TEXT_MODELS, ids=lambda model: type(getattr(model, "steps", [(0, 0)])[0][1]).__name__
)
def test_a_model_of_texts_gets_a_series(serve: Any, model: Any, name: str | None) -> None:
    texts: Any = TEXTS if name is None else pd.Series(TEXTS, name=name)
    model.fit(texts, IS_GOOD)
    more = {"input_example": texts} if name is None else {"input_example": texts.to_frame()}
    log = log_sklearn(model, signature=infer_signature(texts, IS_GOOD), **more)
    expected = model.predict_proba(TEXTS)
    for loaded in serve(log, trusted_types=f"{HERE}.Lowered"):
        for n_rows in (1, 3, len(TEXTS)):
            rows = [text if name is None else {name: text} for text in TEXTS[:n_rows]]
            got = [list(one["probabilities"].values()) for one in answers(loaded, rows)]
            np.testing.assert_allclose(got, expected[:n_rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [None, "review"])
@pytest.mark.parametrize(
    ("vectorizer", "runtime", "reason"),
    [
        (TfidfVectorizer(), "compiled", None),
        (HashingVectorizer(), "mixed", "step 'hashingvectorizer': HashingVectorizer has no compiled form"),
    ],
    ids=["compiled", "wide"],
)
def test_what_comes_after_a_vectorizer_of_a_series_is_compiled(
    serve: Any, vectorizer: Any, runtime: str, reason: str | None, name: str | None
) -> None:
    texts = pd.Series(TEXTS, name=name)
    model = make_pipeline(vectorizer, LogisticRegression()).fit(texts, IS_GOOD)
    for loaded in serve(log_sklearn(model, signature=infer_signature(texts, IS_GOOD))):
        rows = TEXTS if name is None else [{name: text} for text in TEXTS]
        got = [list(one["probabilities"].values()) for one in answers(loaded, rows)]
        np.testing.assert_allclose(got, model.predict_proba(TEXTS), rtol=0, atol=1e-12)
        manifest = loaded.manifest
        assert (manifest.runtime, manifest.native_reason) == (runtime, reason)


@pytest.mark.parametrize(
    ("model", "runtime"),
    [
        (CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=2), "compiled"),
        (OneVsRestClassifier(make_pipeline(CountVectorizer(), LogisticRegression())), "compiled"),
        (
            make_pipeline(CountVectorizer(), FunctionTransformer(np.log1p), LogisticRegression()),
            "mixed",
        ),
        (
            make_pipeline(
                TfidfVectorizer(),
                StackingClassifier(
                    [("a", LogisticRegression()), ("b", MultinomialNB())],
                    final_estimator=RandomForestClassifier(5, random_state=0),
                    cv=2,
                ),
            ),
            "compiled",
        ),
    ],
    ids=["calibrated", "one against the rest", "function", "stack"],
)
def test_a_model_that_holds_vectorizers_of_texts_gets_a_series(serve: Any, model: Any, runtime: str) -> None:
    """Given a frame of a text column, a vectorizer takes the column's name for the only text; wrappers give its answer to
    every row."""
    texts = pd.Series(TEXTS, name="review")
    model.fit(texts, IS_GOOD)
    rows = [{"review": text} for text in TEXTS]
    for loaded in serve(log_sklearn(model, signature=infer_signature(texts, IS_GOOD))):
        got = [list(one["probabilities"].values()) for one in answers(loaded, rows)]
        np.testing.assert_allclose(got, model.predict_proba(TEXTS), rtol=0, atol=1e-12)
        assert loaded.manifest.runtime == runtime


@pytest.mark.parametrize("front", [make_column_transformer((CountVectorizer(), "review")), OneHotEncoder()])
def test_one_column_of_text_stays_a_frame_where_the_model_takes_one(serve: Any, front: Any) -> None:
    rows = pd.DataFrame({"review": TEXTS})
    model = make_pipeline(front, LogisticRegression()).fit(rows, IS_GOOD)
    for loaded in serve(log_sklearn(model, signature=infer_signature(rows, IS_GOOD), input_example=rows)):
        got = [list(one["probabilities"].values()) for one in answers(loaded, rows.to_dict("records"))]
        np.testing.assert_allclose(got, model.predict_proba(rows), rtol=0, atol=1e-12)


class Forecast(mlflow.pyfunc.PythonModel):
    """Three values for each request, whatever it asks."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return np.arange(3.0) + float(model_input["start"].iloc[0])


START = Schema([ColSpec("double", "start")])
EXAMPLE = pd.DataFrame({"start": [1.0]})


def log_forecast(outputs: Schema | None) -> Any:
    return lambda name: mlflow.pyfunc.log_model(
        python_model=Forecast(),
        name=name,
        registered_model_name=name,
        pip_requirements=["scikit-learn"],
        signature=ModelSignature(inputs=START, outputs=outputs),
        input_example=EXAMPLE,
    )


THREE = Schema([TensorSpec(np.dtype("float64"), (3,))])
ANY = Schema([TensorSpec(np.dtype("float64"), (-1,))])


@pytest.mark.parametrize("outputs", [None, ANY, Schema([ColSpec("double")])])
def test_another_number_of_results_is_refused_unless_the_setting_allows_it(serve: Any, outputs: Any) -> None:
    with pytest.raises(ModelRefused, match=r"returned 3 results for 1 row;.*SERVING_ANSWER_ROWS=any"):
        serve(log_forecast(outputs), allow_pickle=True)
    for loaded in serve(log_forecast(outputs), allow_pickle=True, answer_rows="any"):
        assert answers(loaded, [{"start": 5.0}]) == [{"value": 5.0}, {"value": 6.0}, {"value": 7.0}]


def test_a_signature_says_how_many_results_there_are(serve: Any) -> None:
    for loaded in serve(log_forecast(THREE), allow_pickle=True, batching="on"):
        assert answers(loaded, [{"start": 5.0}]) == [{"value": 5.0}, {"value": 6.0}, {"value": 7.0}]
        assert not loaded.batcher.policy.batches


class Forgetful(LogisticRegression):
    """Answers the first rows of any request."""

    n_answered_ = 1

    def predict(self, rows: Any) -> Any:
        return super().predict(rows)[: self.n_answered_]

    def predict_proba(self, rows: Any) -> Any:
        return super().predict_proba(rows)[: self.n_answered_]


def test_results_that_do_not_belong_to_rows_are_no_answer(serve: Any) -> None:
    model = Forgetful(max_iter=5000).fit(X, Y)
    log = log_sklearn(model, signature=infer_signature(X, Y), input_example=X.head(1))
    with pytest.raises(ModelRefused, match="returned 1 result for 2 rows"):
        serve(log, trusted_types=f"{HERE}.Forgetful")
    model.n_answered_ = 600  # more than are tried before
    many = X.to_dict("records") * 4
    for loaded in serve(log, trusted_types=f"{HERE}.Forgetful"):
        with pytest.raises(ModelRefusedInput, match="returned 600 results for 712 rows"):
            answers(loaded, many)


class WhichProcess(RegressorMixin, BaseEstimator):
    """Answers the number of the process that it is asked in."""

    def fit(self, rows: Any, targets: Any) -> Any:
        self.is_fitted_ = True
        return self

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), os.getpid())


@pytest.mark.parametrize("front", [[], [StandardScaler()]], ids=["native", "mixed"])
def test_a_request_starts_no_process(serve: Any, front: list[Any]) -> None:
    last = MultiOutputRegressor(WhichProcess(), n_jobs=None)
    model = make_pipeline(*front, last).fit(X, X[["ash", "hue"]]) if front else last.fit(X, X[["ash", "hue"]])
    last.n_jobs = 2
    log = log_sklearn(model, signature=infer_signature(X, X[["ash", "hue"]]), input_example=X.head(10))
    for loaded in serve(log, trusted_types=f"{HERE}.WhichProcess"):
        assert answers(loaded, X.head(3).to_dict("records")) == [{"value": [os.getpid()] * 2}] * 3


REASONS: list[tuple[Any, pd.DataFrame, pd.DataFrame, list[str]]] = [
    (
        LogisticRegression(),
        X[["ash", "hue"]],
        X[["ash"]],
        ["fitted on the column 'hue', which its signature does not"],
    ),
    (
        LogisticRegression(),
        X[["ash"]],
        X[["ash", "hue"]],
        ["signature has the column 'hue', which it was not fitted"],
    ),
    (
        make_pipeline(StandardScaler(), LogisticRegression()),
        X[["ash", "hue"]],
        X[["ash", "hue"]].assign(hue=[np.nan, *X["hue"][1:]]),
        [
            "step 'logisticregression' (LogisticRegression) raises it",
            "missing values in the column 'hue'",
            "refuses 1 of",
        ],
    ),
    (
        make_column_transformer((OneHotEncoder(), ["colour"])),
        pd.DataFrame({"colour": ["red", "green"] * 5}),
        pd.DataFrame({"colour": ["red", "SECRET"] * 5}),
        ["step 'columntransformer'", "refuses 2, 4 of the 5 rows"],
    ),
]


@pytest.mark.parametrize(("model", "fitted_on", "example", "parts"), REASONS)
def test_a_model_that_refuses_its_own_example_is_told_why(
    serve: Any, model: Any, fitted_on: pd.DataFrame, example: pd.DataFrame, parts: list[str]
) -> None:
    if not hasattr(model, "predict"):
        model = make_pipeline(model, LogisticRegression())
    model.fit(fitted_on, np.arange(len(fitted_on)) % 2)
    with pytest.raises(ModelRefused) as error:
        serve(
            log_with(
                mlflow.sklearn,
                model,
                serialization_format="cloudpickle",
                signature=infer_signature(example, [0]),
                input_example=example,
            )
        )
    reason = str(error.value)
    for part in [*parts, "rows of its own input example: ValueError in sklearn.", "log it again"]:
        assert part in reason, reason
    assert "SECRET" not in reason
    assert "\n" not in reason


def test_names_that_lightgbm_writes_otherwise_are_no_other_columns(serve: Any) -> None:
    rows = X[["ash", "hue"]].set_axis(["ash (g)", "hue"], axis=1)
    model = LGBMClassifier(n_estimators=2, verbose=-1).fit(rows[["ash (g)"]], Y)
    log = log_sklearn(model, signature=infer_signature(rows), input_example=rows.head(3))
    with pytest.raises(ModelRefused, match="it was fitted on 1 column, and its signature has 2 columns"):
        serve(log)
