"""`scripts/check.py`: what it says of models that would be refused, and of what is not a model."""

import argparse
import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from scripts import check
from scripts.checking.findings import find_warnings, is_pickle
from scripts.checking.nulls import find_refused_nulls
from scripts.checking.source import find_source
from serving.model.prepared import Manifest
from serving.model.schema import parse_schema
from serving.runtime.native import load_native
from serving.settings import Settings
from tests.support.fake_service import Run
from tests.support.models import REQUIREMENTS
from tests.support.promotions import NAME, Registry

INPUTS = '[{"type": "double", "name": "a"}, {"type": "long", "name": "n", "required": true}]'


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Nothing is changed in it."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.1, 0.01)


def test_a_folder_without_a_signature_is_refused_in_the_words_of_the_service(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    X, y = load_wine(return_X_y=True)
    mlflow.sklearn.save_model(LogisticRegression(max_iter=2000).fit(X, y), tmp_path / "model", **REQUIREMENTS)
    code, out, err = run(check, str(tmp_path / "model"), "--json")
    told = json.loads(out)
    assert (code, err) == (1, "")
    assert told["served"] is False
    assert told["reason"].startswith("it was logged without a signature; log it with signature=")
    assert told["not_compared"].startswith("no registered model is given")
    assert not (tmp_path / "bentoml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"model:/{NAME}/1", "is not a model; expected models:/NAME/VERSION, models:/NAME@ALIAS"),
        (f"models:/{NAME}", f"'{NAME}' is a registered model; name one of its versions: models:/{NAME}/3"),
        (NAME, f"'{NAME}' is a registered model; name one of its versions: models:/{NAME}/3"),
        ("models:/vine", "'models:/vine' is not a model; expected"),
        (".", "is not a model; expected"),
        (f"models:/{NAME}/9", "has no version 9 (there are: 1, 2, 3)"),
        (f"models:/{NAME}/Staging", "has no version Staging (there are: 1, 2, 3)"),
        ("9", "has no version 9 (there are: 1, 2, 3)"),
        (f"models:/{NAME}@blue", "has the alias 'blue' (aliases set: production)"),
        ("models:/vine/1", "the registry has no model 'vine'"),
    ],
)
def test_what_is_no_model_is_told_in_a_line(run: Run, text: str, words: str):
    code, out, err = run(check, text)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_version_of_another_model_than_name_says_is_told(run: Run):
    code, _, err = run(check, f"models:/{NAME}/1", "--name", "beer")
    assert code == 2
    assert f"models:/{NAME}/1 is a version of '{NAME}', not of 'beer' (--name)" in err


def test_the_first_version_of_a_model_is_checked_without_a_comparison(registry: Registry, tmp_path: Path):
    (tmp_path / "MLmodel").touch()
    options = argparse.Namespace(model=str(tmp_path), name="vine", alias=None, stage=None)
    found = find_source(options, Settings(MLFLOW_TRACKING_URI=registry.uri))
    assert found.production is None
    assert "the registry has no model 'vine'" in found.not_compared


def manifest(**more: Any) -> Manifest:
    known: dict[str, Any] = dict.fromkeys(Manifest.__struct_fields__)
    return Manifest(**(known | {"writers_code": None} | more))


def test_what_its_writer_should_know_is_said(tmp_path: Path):
    mlmodel: dict[str, Any] = {
        "flavors": {"sklearn": {"serialization_format": "cloudpickle"}, "python_function": {}}
    }
    schema = parse_schema(INPUTS, None)
    found = list(find_warnings(mlmodel, manifest(), schema, tmp_path, {}))
    assert [text.partition(":")[0] for text in found] == [
        "it has no input example",
        "null is refused in 'n' (long)",
        "it is a pickle, as autolog() writes it",
    ]
    (tmp_path / "reference.json").touch()
    mlmodel["flavors"]["sklearn"]["serialization_format"] = "skops"
    assert not is_pickle(mlmodel)
    floats = parse_schema(INPUTS.replace("long", "float"), None)
    assert list(find_warnings(mlmodel, manifest(), floats, tmp_path, {})) == []
    code = manifest(writers_code="is a pyfunc model of its own; log it otherwise")
    (text,) = find_warnings(mlmodel, code, floats, tmp_path, {})
    assert text.startswith("it is a pyfunc model of its own: loading it runs its author's code")
    refused = {"a": "LinearRegression raises ValueError", "n": "LinearRegression raises ValueError"}
    (text,) = find_warnings(mlmodel, manifest(), floats, tmp_path, refused)
    assert text.startswith(
        "null in 'a' (double), 'n' (float) fits the signature, but the model refuses it: LinearRegression raises"
    )


FREE, LUNCH = "free money now", "see you at lunch"
MAIL = pd.DataFrame({"text": [FREE, LUNCH] * 9, "length": [1.0, 2.0] * 9, "age": [3.0, 4.0] * 9})
SPAM = ["spam", "ham"] * 9
TABLE = make_column_transformer(
    (TfidfVectorizer(), "text"), (SimpleImputer(), ["length"]), ("passthrough", ["age"])
)


@pytest.mark.parametrize(
    ("model", "rows", "refused"),
    [
        (
            make_pipeline(TABLE, LogisticRegression()),
            MAIL,
            {"text": "TfidfVectorizer raises ValueError", "age": "LogisticRegression raises ValueError"},
        ),
        (
            make_pipeline(TfidfVectorizer(), LogisticRegression()),
            MAIL["text"],
            {"text": "TfidfVectorizer raises ValueError"},
        ),
        (make_pipeline(SimpleImputer(), LogisticRegression()), MAIL[["length", "age"]], {}),
    ],
    ids=["columns", "texts", "imputed"],
)
def test_null_is_tried_in_each_column_that_may_have_it(
    model: Any, rows: Any, refused: dict[str, str], tmp_path: Path
):
    signature = infer_signature(rows)
    mlflow.sklearn.save_model(
        model.fit(rows, SPAM),
        tmp_path,
        serialization_format="cloudpickle",
        signature=signature,
        **REQUIREMENTS,
    )
    schema = parse_schema(json.dumps(signature.inputs.to_dict()))
    instances = pd.DataFrame(rows[:2]).to_dict("records")
    native = load_native(tmp_path, schema, None)
    assert find_refused_nulls(native, schema, json.dumps({"instances": instances}).encode()) == refused
