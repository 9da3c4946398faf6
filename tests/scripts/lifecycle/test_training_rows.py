"""Rows that a version was trained on are told from rows that are alike."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from scripts.lifecycle.training_rows import Overlap, find_overlap, is_notable
from scripts.training.churn_sample import TARGET, make_churn_sample
from scripts.training.reference import reference_instances
from serving.codecs.json import JsonDecoder
from serving.model.schema import Inputs, Schema, parse_schema

SCHEMA = parse_schema(
    json.dumps(
        [
            {"type": "long", "name": "tenure", "required": False},
            {"type": "float", "name": "monthly_charges", "required": True},
            {"type": "string", "name": "contract_type", "required": True},
            {"type": "string", "name": "customer", "required": False},
        ]
    ),
    None,
)
COLUMNS = ["tenure", "monthly_charges", "contract_type"]


def decode(rows: pd.DataFrame, schema: Schema = SCHEMA) -> Inputs:
    body = msgspec.json.encode({"instances": json.loads(rows.to_json(orient="records"))})
    return JsonDecoder(schema, len(rows)).predict(body)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a model whose 300 training rows are known by 200 of them."""
    trained = make_churn_sample(300, seed=1)[COLUMNS].sample(200, random_state=0)
    (tmp_path / "reference.json").write_text(json.dumps(reference_instances(trained, 0)))
    return tmp_path


def test_a_file_of_training_rows_is_known_by_the_sample_that_was_kept(folder: Path):
    rows = make_churn_sample(300, seed=1)
    # Other rows beside them, one of them with a value missing, and a column that was not kept.
    rows = pd.concat([rows, make_churn_sample(300, seed=2)]).drop(columns=TARGET).reset_index(drop=True)
    rows["tenure"] = rows["tenure"].astype(object)
    rows.loc[450, "tenure"] = None
    rows = rows[COLUMNS].assign(customer=[f"c-{n}" for n in range(600)])
    assert find_overlap(folder, {}, SCHEMA, decode(rows)) == Overlap(200, 200, is_sample=True)


def test_other_rows_of_the_same_kind_are_not(folder: Path):
    rows = make_churn_sample(2000, seed=2)[COLUMNS]
    assert find_overlap(folder, {}, SCHEMA, decode(rows)) is None


def test_a_model_without_rows_tells_nothing(tmp_path: Path):
    assert find_overlap(tmp_path, {}, SCHEMA, decode(make_churn_sample(20, seed=2)[COLUMNS])) is None


@pytest.mark.parametrize(
    ("found", "logged", "is_sample", "n_twice", "notable"),
    [
        (60, 1000, True, 0, True),
        (40, 1000, True, 0, False),  # less than one in twenty
        (1, 5, False, 0, False),  # an example that was taken before the rows were split
        (3, 5, False, 0, True),
        (
            900,
            1000,
            True,
            450,
            False,
        ),  # nine in ten rows of the file have a twin: so have nine in ten new rows
        (1000, 1000, True, 450, True),
        (5, 5, False, 450, False),
    ],
)
def test_chance_is_told_from_the_same_rows(
    found: int, logged: int, is_sample: bool, n_twice: int, notable: bool
):
    times = [2] * n_twice + [1] * (1000 - 2 * n_twice)
    assert is_notable(Overlap(found, logged, is_sample), times, 1000) is notable


def test_files_of_few_different_rows_are_rarely_taken_for_training_rows():
    """Of two independent draws from 400 kinds of rows, most rows of the one are in the other."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        file, sample = random.integers(0, 400, 300), random.integers(0, 400, 300)
        _, times = np.unique(file, return_counts=True)
        overlap = Overlap(int(np.isin(sample, file).sum()), 300, is_sample=True)
        wrong += is_notable(overlap, times.tolist(), 300)
    assert wrong <= 10
