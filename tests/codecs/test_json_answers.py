"""Answers in JSON: one form for datetimes, whatever the model holds them in."""

import datetime as dt
import json
import math
import zoneinfo

import msgspec
import numpy as np
import pandas as pd
import pytest

from serving.codecs.json_answers import array_to_json
from serving.protocols.v1 import encode_batch, predictions
from serving.runtime import Output
from tests.support.manifests import some_manifest

NEW_YORK = zoneinfo.ZoneInfo("America/New_York")
WANTED = "2024-05-01T01:00:00"


def objects(*values: object) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


@pytest.mark.parametrize("unit", ["h", "m", "s", "ms", "us", "ns"])
def test_an_array_of_datetimes_is_text_in_any_unit(unit):
    array = np.array(["2024-05-01T01", "NaT"], f"M8[{unit}]")
    assert array_to_json(array) == [WANTED, None]
    assert array_to_json(array.reshape(2, 1)) == [[WANTED], [None]]


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (dt.datetime(2024, 5, 1, 1), WANTED),  # noqa: DTZ001  # models answer without a zone
        (dt.datetime(2024, 5, 1, 1, tzinfo=dt.UTC), WANTED),
        (dt.datetime(2024, 4, 30, 21, tzinfo=NEW_YORK), WANTED),
        (pd.Timestamp("2024-05-01 01:00"), WANTED),
        (pd.Timestamp("2024-04-30 21:00", tz="America/New_York"), WANTED),
        (np.datetime64("2024-05-01T01"), WANTED),
        (np.datetime64("2024-05-01T01:00:00", "ns"), WANTED),
        (np.array("2024-05-01T01", "M8[ns]"), WANTED),
        (dt.date(2024, 5, 1), "2024-05-01T00:00:00"),
        (np.datetime64("2024-05"), "2024-05-01T00:00:00"),
        (pd.Timestamp("2024-05-01 01:00:00.5"), f"{WANTED}.5"),
        (pd.Timestamp("2024-05-01 01:00:00.000000007"), f"{WANTED}.000000007"),
        (np.datetime64("2024-05-01T01:00:00.123000", "us"), f"{WANTED}.123"),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        ({"at": pd.Timestamp("2024-05-01 01:00"), "n": 1}, {"at": WANTED, "n": 1}),
        ([np.array(["2024-05-01T01"], "M8[ns]"), "text", None, True], [[WANTED], "text", None, True]),
    ],
    ids=repr,
)
def test_a_datetime_among_objects_is_text(value, want):
    assert array_to_json(objects(value)) == [want]
    entry = predictions(Output(values=objects(value)), some_manifest())
    assert msgspec.json.decode(msgspec.json.encode(entry)) == [{"value": want}]


def test_what_is_not_finite_is_null_in_json():
    body = encode_batch(
        Output(values=np.array([[1.5, math.inf], [math.nan, -math.inf]])), some_manifest(), "application/json"
    )
    assert json.loads(body) == [[1.5, None], [None, None]]


def test_numbers_and_labels_are_what_they_were():
    assert array_to_json(np.array([[1.5, 2.0]])) == [[1.5, 2.0]]
    assert array_to_json(objects("yes", "no")) == ["yes", "no"]
    assert array_to_json(np.array([True, False])) == [True, False]
