"""docs/training.md: its commands run, and its table has what `train.py` does with columns."""

import ast
import os
import re
import shlex
from unittest import mock

import mlflow
import pytest

from scripts.train import main
from scripts.training.churn_sample import make_churn_sample
from scripts.training.column_options import COLUMN_OPTIONS, Said
from scripts.training.columns import MAX_CATEGORIES
from scripts.training.conversion import convert_columns
from scripts.training.evaluation import N_FOLDS
from scripts.training.pipeline import ESTIMATORS, MAX_INTEGER_CLASSES, MAX_WORDS
from scripts.training.reading import describe_reading
from scripts.training.reference import MAX_REFERENCE_ROWS, N_EXAMPLE_ROWS
from scripts.training.table import read_csv
from tests.support.environment import ROOT, clean_environment
from tests.support.models import fill_registry

PAGE = (ROOT / "docs/training.md").read_text()
COMMANDS = [
    shlex.split(line)[2:]
    for line in re.findall(r"^\$ \.venv/bin/python scripts/train\.py .*", PAGE, re.MULTILINE)
]


@pytest.mark.parametrize(
    "arguments", [command[1:] for command in COMMANDS], ids=[" ".join(c[5:]) for c in COMMANDS]
)
def test_command_runs_and_the_version_is_there(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill_registry(tmp_path, {})
    make_churn_sample(300).to_csv("customers.csv", index=False)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with mock.patch.dict(os.environ, clean_environment() | {"MLFLOW_TRACKING_URI": uri}, clear=True):
        assert main(arguments) == 0
        versions = mlflow.MlflowClient().search_model_versions("name='churn'")
    mlflow.set_tracking_uri(None)
    assert [version.version for version in versions] == [1]
    assert "estimator: " in capsys.readouterr().out


def test_page_names_every_kind_of_column_and_every_estimator():
    rows = re.findall(r"^\| (\w[\w ]*) \|.*`--(\w+)`.*\|$", PAGE, re.MULTILINE)
    assert {kind for _, kind in rows} == set(COLUMN_OPTIONS)
    assert f"| {' | '.join(ESTIMATORS)} |" in PAGE


def test_numbers_of_the_page_are_those_of_the_code():
    assert f"the {MAX_CATEGORIES - 1} commonest values" in PAGE
    assert f"the {MAX_WORDS:,} commonest words" in PAGE
    assert f"up to {MAX_INTEGER_CLASSES} distinct integers" in PAGE
    assert f"sample of {MAX_REFERENCE_ROWS:,} input rows" in PAGE
    assert (N_FOLDS, N_EXAMPLE_ROWS) == (5, 5)  # "five" in the page


def test_line_for_callers_is_the_one_of_such_a_file(tmp_path):
    (call,) = re.findall(r"```python\n(pd\.read_csv\(.*?)```", PAGE, re.DOTALL)
    rows = "".join(f"01067;{n},5;{1 + n % 28}.05.2024;1\n" for n in range(50))
    (tmp_path / "customers.csv").write_text(f"zip;paid;visited;bad\n{rows}10115;k.A.;31.05.2024;0\n")
    csv = read_csv(tmp_path / "customers.csv")
    converted = convert_columns(csv, Said({"paid": "number"}, {}), "bad")
    printed = describe_reading(tmp_path / "customers.csv", csv, converted, "bad")
    assert ast.dump(ast.parse(printed)) == ast.dump(ast.parse(call))
