"""The same rows over every protocol and media type, for every family of models: the model's own numbers.

A new protocol is a row of `tests/protocols/asking.py`.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server import predictions_to_json
from sklearn.base import is_classifier
from sklearn.datasets import load_digits

from tests.http.in_process import Application, running_application
from tests.protocols.asking import DIALECTS, JSON
from tests.support.environment import tracking
from tests.support.models import frame

N_ROWS = 40

TOLERANCE = 1e-6
"""Of an answer, relative above 1: the limit of `serving.prepare.checks.parity`."""

SUMS = pd.DataFrame({"a": [1.5, -7.0, 0.1], "b": [2, 3, 4], "bonus": [0.5, np.nan, 1.0]})

FAMILIES = {
    "cancer": lambda: frame("cancer"),
    "iris": lambda: frame("iris"),
    "wine": lambda: frame("wine").astype(float),
    "diabetes": lambda: frame("diabetes"),
    "multi-regression": lambda: frame("diabetes"),
    "multi-classification": lambda: frame("wine").astype(float),
    "no-probabilities": lambda: frame("wine").astype(float),
    "digits": lambda: load_digits().data,
    "lightgbm-booster": lambda: frame("wine").astype(float),
    "xgboost-booster": lambda: frame("cancer"),
    "custom pyfunc": lambda: SUMS,
}
"""Classifiers of two and more classes, with labels of text and of numbers, of one output and more; regressors; a model of a
tensor; boosters, whose pyfunc answers their raw output; a pyfunc that answers a frame."""


class Family(NamedTuple):
    application: Application
    rows: Any
    expected: dict[str, Any]
    example: Path
    """What MLflow wrote to try the served model with, if the model was logged with an example."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, registry_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Family]:
    name = request.param
    rows = FAMILIES[name]()[:N_ROWS]
    with tracking(registry_uri):
        uri = f"models:/{name}@production"
        expected = expected_of(uri, rows)
        example = Path(mlflow.artifacts.download_artifacts(uri)) / "serving_input_example.json"
    folder = tmp_path_factory.mktemp("worker")
    more = {"SERVING_ALLOW_PICKLE": "true"}
    with running_application(folder, registry_uri, name, **more) as application:
        yield Family(application, rows, expected, example)


def expected_of(uri: str, rows: Any) -> dict[str, Any]:
    """The model's own answers: of MLflow's pyfunc as its server writes them, and of the library."""
    pyfunc = mlflow.pyfunc.load_model(uri)
    out = io.StringIO()
    raw = pyfunc.predict(rows)
    predictions_to_json(raw, out)
    answered = json.loads(out.getvalue())["predictions"]
    flavors = pyfunc.metadata.flavors
    labels = probabilities = answered
    if "sklearn" in flavors:
        model = mlflow.sklearn.load_model(uri)
        if is_classifier(model) and hasattr(model, "predict_proba") and np.ndim(model.classes_[0]) == 0:
            probabilities = model.predict_proba(rows).tolist()
    elif np.asarray(raw).dtype.kind == "f":
        scores = np.asarray(raw)
        both = np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores
        labels, probabilities = both.argmax(axis=1).tolist(), both.tolist()
    return {"pyfunc": answered, "labels": labels, "probabilities": probabilities}


def assert_same(got: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(got[key], value)
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float) and expected == expected:  # noqa: PLR0124  # not NaN
        assert got == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
    else:
        assert type(got) is type(expected)
        assert got == expected


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_models_own_numbers(family: Family, name: str) -> None:
    dialect = DIALECTS[name]
    if not isinstance(family.rows, dialect.takes):
        pytest.skip("a tensor has no columns with names")
    if name in (".npy", "Arrow") and isinstance(family.expected["pyfunc"][0], dict):
        pytest.skip("only JSON carries objects")
    assert_same(dialect.ask(family.application, family.rows), family.expected[dialect.answers])


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "instances"])
def test_a_single_row_is_answered_like_one_of_many(family: Family, name: str) -> None:
    dialect = DIALECTS[name]
    if not isinstance(family.rows, dialect.takes):
        pytest.skip("a tensor has no columns with names")
    if name in (".npy", "Arrow") and isinstance(family.expected["pyfunc"][0], dict):
        pytest.skip("only JSON carries objects")
    assert_same(dialect.ask(family.application, family.rows[2:3]), family.expected[dialect.answers][2:3])


def test_the_example_that_mlflow_wrote_is_answered(family: Family) -> None:
    if not family.example.exists():
        pytest.skip("the model was logged without an example")
    body = family.example.read_bytes()
    response = family.application.post("/invocations", content=body, headers={"content-type": JSON})
    assert response.status_code == 200, response.text
