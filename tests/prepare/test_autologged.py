"""What data scientists log without a thought of serving is served, with every safety on."""

from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.cluster import BisectingKMeans
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from serving.errors import ModelRefused
from serving.traffic.loaded import LoadedModel
from tests.support.logged import Logged, answers, log_sklearn, log_with

X, Y = load_wine(return_X_y=True, as_frame=True)
MIXED = X[["alcohol", "ash"]].assign(colour=np.array(["red", "white", "rose"])[Y], n=np.arange(len(X)) % 3.0)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers, prepares and loads a model."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return Logged(tmp_path).serve


def check_answers(models: tuple[LoadedModel, LoadedModel], fitted: Any, rows: pd.DataFrame) -> None:
    for model in models:
        got = answers(model, rows.to_dict("records"))
        if hasattr(fitted, "predict_proba"):
            expected = fitted.predict_proba(rows)
            found = [list(entry["probabilities"].values()) for entry in got]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        expected = fitted.predict(rows).tolist()
        assert [entry.get("label", entry.get("value")) for entry in got] == pytest.approx(expected)
        assert model.manifest.writers_code is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("given_requirements")
def test_a_forest_that_autolog_logged_is_served(serve: Any) -> None:
    forest = RandomForestClassifier(10, random_state=0)

    def log(name: str) -> Any:
        mlflow.sklearn.autolog(log_input_examples=True, registered_model_name=name, silent=True)
        try:
            forest.fit(X, Y)
        finally:
            mlflow.sklearn.autolog(disable=True)
        (version,) = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
        return type("Info", (), {"registered_model_version": version.version})

    models = serve(log)
    check_answers(models, forest, X)
    assert models[0].runtime_name == "compiled"


def columns(*, is_boosted: bool) -> Any:
    front = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include=np.number)),
        (OneHotEncoder(sparse_output=False), make_column_selector(dtype_exclude=np.number)),
    )
    last = (
        lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1) if is_boosted else LogisticRegression()
    )
    return make_pipeline(front, last)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "rows", "serialization_format"),
    [
        (columns(is_boosted=True), MIXED, "cloudpickle"),
        (columns(is_boosted=False), MIXED, "cloudpickle"),
        (columns(is_boosted=False), MIXED, "pickle"),
        (
            HistGradientBoostingClassifier(max_iter=3, categorical_features=[3]),
            MIXED.drop(columns="colour").assign(m=1.0)[["alcohol", "ash", "m", "n"]],
            "cloudpickle",
        ),
        (BisectingKMeans(3, random_state=0), X, "cloudpickle"),
        (lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1), X, "cloudpickle"),
        (lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1), X, "pickle"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else type(value[-1] if hasattr(value, "steps") else value).__name__
    ),
)
def test_pickles_of_the_libraries_are_served(
    serve: Any, model: Any, rows: pd.DataFrame, serialization_format: str
) -> None:
    fitted = model.fit(rows, Y)
    flavor = mlflow.lightgbm if isinstance(model, lightgbm.LGBMModel) else mlflow.sklearn
    models = serve(
        log_with(
            flavor,
            fitted,
            signature=infer_signature(rows, fitted.predict(rows)),
            input_example=rows.head(40),
            serialization_format=serialization_format,
        )
    )
    check_answers(models, fitted, rows)


def test_an_estimator_of_lightgbm_is_served_as_mlflow_logs_it(serve: Any) -> None:
    fitted = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(X, Y)
    models = serve(
        log_with(
            mlflow.lightgbm,
            fitted,
            signature=infer_signature(X, fitted.predict(X)),
            input_example=X.head(40),
        )
    )
    check_answers(models, fitted, X)


def test_a_pickle_that_would_open_callers_files_is_refused(serve: Any) -> None:
    texts = pd.DataFrame({"text": ["good", "bad"] * 10})
    front = make_column_transformer((CountVectorizer(), "text"))
    model = make_pipeline(front, LogisticRegression()).fit(texts, [0, 1] * 10)
    model[0].transformers_[0][1].input = "filename"
    with pytest.raises(ModelRefused, match="CountVectorizer reads files that callers name"):
        serve(log_sklearn(model, signature=infer_signature(texts, np.zeros(1))))


def test_code_of_the_writers_needs_the_setting(serve: Any) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    model.steps[0] = ("own", OwnScaler().fit(X))

    log = log_sklearn(model, signature=infer_signature(X, np.zeros(1)), input_example=X.head(3))
    with pytest.raises(
        ModelRefused, match=r"needs untrusted types: tests\.prepare\.test_autologged\.OwnScaler"
    ):
        serve(log)
    name = f"{__name__}.OwnScaler"
    for settings, code in (({"trusted_types": name}, None), ({"allow_pickle": True}, "is a pickle")):
        for loaded in serve(log, **settings):
            assert str(loaded.manifest.writers_code).startswith(str(code))


class OwnScaler(StandardScaler):
    """A step of a team's own."""


class Rebuilt(StandardScaler):
    """A step whose pickle calls it, which a reader of data does not do."""

    def __reduce__(self) -> Any:
        return Rebuilt, (), vars(self)


def test_a_pickle_that_calls_own_classes_is_read_as_python_does_where_code_may_run(serve: Any) -> None:
    model = make_pipeline(Rebuilt(), LogisticRegression(max_iter=500)).fit(X, Y)
    log = log_sklearn(model, signature=infer_signature(X, np.zeros(1)), input_example=X.head(3))
    own = f"{__name__}.Rebuilt"
    with pytest.raises(ModelRefused, match=rf"cannot be read as data: it calls {own};.*SERVING_ALLOW_PICKLE"):
        serve(log, trusted_types=own)
    for loaded in serve(log, trusted_types=own, allow_pickle=True):
        assert "cannot be read as data" in str(loaded.manifest.writers_code)
        assert loaded.manifest.own_types == []
