"""What the model is given through the client is what it is given by MLflow, whatever the rows are made of."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from serving.client import Client, InvalidInput
from tests.client.bridge import Bridge
from tests.client.echo import COLUMNS, echo_registry
from tests.http.in_process import running_application
from tests.support.environment import tracking


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return echo_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def own(uri: str) -> Any:
    """The model, as MLflow loads it."""
    with tracking(uri):
        return mlflow.pyfunc.load_model("models:/echo@production")


@pytest.fixture(scope="module")
def bridge(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    folder = tmp_path_factory.mktemp("worker")
    with running_application(folder, uri, "echo", SERVING_ALLOW_PICKLE="true") as application:
        yield Bridge(application)


@pytest.fixture
def client(bridge: Bridge) -> Iterator[Client]:
    bridge.paths.clear()
    with Client("http://worker", transport=bridge) as client:
        yield client


def shown(answers: Any, names: Any) -> list[list[str]]:
    """The cells of some columns, of each row."""
    positions = [list(COLUMNS).index(name) for name in names]
    return [[row.split("|")[position] for position in positions] for row in answers]


def objects(*cells: Any) -> pd.Series:
    return pd.Series(list(cells), dtype=object)


NA, NAN = pd.NA, float("nan")
TWO = dt.timezone(dt.timedelta(hours=2))
MOMENT = pd.Timestamp("2024-05-01T01:02:03.123456789")

SAME = {
    "doubles": {"number": [1.5, NAN, 0.1 + 0.2, 1e300, -0.0]},
    "single floats": {"number": np.array([0.1, NAN], np.float32), "narrow": np.array([0.1, NAN], np.float32)},
    "integers for doubles": {"number": np.array([1, 2], np.int32)},
    "nullable doubles": {"number": pd.array([1.5, None], dtype="Float64")},
    "the ends of 64 bits": {"count": [2**63 - 1, -(2**63)]},
    "small integers": {"count": np.array([1, -2], np.int8)},
    "objects for doubles": {"number": objects(1, 2.5, np.float32(0.1), np.int64(3), None)},
    "decimals": {"number": objects(Decimal("0.1"), Decimal(2**70), None)},
    "booleans": {"flag": [True, False]},
    "booleans and None": {"flag": objects(True, None)},
    "text": {"text": ["ä", None, "", "NaN", "null"]},
    "text as objects": {"text": objects("ä", None, NAN, NA)},
    "text of pyarrow": {"text": pd.array(["a", None], dtype="string[pyarrow]")},
    "nanoseconds": {"moment": pd.Series([MOMENT, None])},
    "seconds": {"moment": np.array(["2024-05-01", "NaT"], "M8[s]")},
    "dates": {"moment": objects(dt.date(2024, 5, 1), None)},
    "bytes": {"blob": objects(b"\x00\xff", b"", None)},
    "lists": {"items": objects([1.0, 2.5], [])},
    "all missing": {"text": objects(None, None), "number": [NAN, NAN], "moment": objects(None, None)},
}

ALIKE = {
    "categories": ({"text": pd.Categorical(["b", None, "a"])}, {"text": ["b", None, "a"]}),
    "categories of numbers": ({"count": pd.Categorical([3, 1])}, {"count": [3, 1]}),
    "a zone": (
        {"moment": pd.Series([MOMENT, None]).dt.tz_localize("Europe/Berlin")},
        {"moment": pd.Series([MOMENT - pd.Timedelta(hours=2), None])},
    ),
    "zones as objects": (
        {"moment": objects(dt.datetime(2024, 5, 1, 1, tzinfo=TWO), pd.NaT)},
        {"moment": pd.Series([pd.Timestamp("2024-04-30T23:00"), None])},
    ),
    "nullable booleans": ({"flag": pd.array([True, None], dtype="boolean")}, {"flag": objects(True, None)}),
    "columns of pyarrow": (
        {"moment": pd.Series([MOMENT, None], dtype="timestamp[ns][pyarrow]")},
        {"moment": pd.Series([MOMENT, None])},
    ),
    "sparse": ({"number": pd.arrays.SparseArray([0.0, 1.0, NAN])}, {"number": [0.0, 1.0, NAN]}),
}
"""What MLflow does not take, and the same as it does."""

CASES = {name: (given, given) for name, given in SAME.items()} | ALIKE


@pytest.mark.parametrize(("given", "alike"), CASES.values(), ids=CASES)
def test_a_frame_gives_the_model_what_mlflow_gives_it(
    own: Any, client: Client, given: Any, alike: Any
) -> None:
    expected = shown(own.predict(pd.DataFrame(alike)), given)
    frame = pd.DataFrame(given)
    assert shown(client.predict(frame)["prediction"], given) == expected
    assert shown(client.predict_batch(frame), given) == expected


def test_frames_go_as_arrow_unless_json_is_more_exact(client: Client, bridge: Bridge) -> None:
    for columns in (SAME["text"], SAME["text as objects"], SAME["decimals"], ALIKE["sparse"][0]):
        client.predict_batch(pd.DataFrame(columns))
    assert bridge.paths == ["/v1/predict_batch", "/v1/predict_batch", "/v1/predict", "/v1/predict"]


FRAME = pd.DataFrame(
    {
        "text": ["a", None, "c"],
        "number": [1.5, NAN, 2.5],
        "count": [1, 2, 3],
        "moment": [MOMENT, pd.NaT, MOMENT],
    },
    index=["x", "y", "z"],
)
RECORDS = [
    {"text": "a", "number": np.float64(1.5), "count": np.int8(1), "moment": MOMENT},
    {"text": None, "number": NAN, "count": 2, "moment": pd.NaT},
    {"text": "c", "number": np.float32(2.5), "count": Decimal(3), "moment": MOMENT.to_datetime64()},
]
STRUCTURED = np.array(
    [("a", 1.5, 1), ("b", NAN, 2)], dtype=[("text", "U1"), ("number", "f8"), ("count", "i4")]
)
NAMED = ["text", "number", "count", "moment"]

KINDS = {
    "records": RECORDS,
    "a tuple of records": tuple(RECORDS),
    "frame.to_dict": FRAME.to_dict("records"),
    "a dict of lists": {name: [record[name] for record in RECORDS] for name in NAMED},
    "a dict of arrays and series": {
        "text": FRAME["text"].to_numpy(object),
        "number": np.ma.array([1.5, 9.0, 2.5], mask=[0, 1, 0]),
        "count": (1, 2, 3),
        "moment": FRAME["moment"].set_axis([10.5, 11.5, 12.5]),
    },
    "an Arrow table": pa.Table.from_pandas(FRAME),
    "a record batch": pa.RecordBatch.from_pandas(FRAME),
    "words of Arrow": pa.Table.from_pandas(FRAME).set_column(
        0, "text", pa.array(["a", None, "c"]).dictionary_encode()
    ),
}


@pytest.mark.parametrize("rows", KINDS.values(), ids=KINDS)
def test_rows_of_every_kind_are_the_same_rows(own: Any, client: Client, rows: Any) -> None:
    expected = shown(own.predict(FRAME.reset_index(drop=True)), NAMED)
    assert shown([one["value"] for one in client.predict(rows)], NAMED) == expected
    assert shown(client.predict_batch(rows), NAMED) == expected


def test_a_structured_array(own: Any, client: Client) -> None:
    expected = shown(own.predict(pd.DataFrame(STRUCTURED)), STRUCTURED.dtype.names)
    assert shown([one["value"] for one in client.predict(STRUCTURED)], STRUCTURED.dtype.names) == expected
    assert shown(client.predict_batch(STRUCTURED), STRUCTURED.dtype.names) == expected


def test_the_answer_to_a_frame_has_its_index_and_says_who_answered(client: Client) -> None:
    answer = client.predict(FRAME, headers={"X-Request-ID": "mine"})
    assert list(answer.index) == ["x", "y", "z"]
    assert answer.attrs == {"model": {"name": "echo", "version": "1"}, "request_ids": ["mine"]}


WRONG = {
    "no rows": ("data.csv", "got str"),
    "one record": ({"text": "a"}, r"column 'text', got str; put a single record in a list, \[record\]"),
    "lengths": ({"text": ["a"], "count": [1, 2]}, "one length, got 1 and 2"),
    "a name twice": (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' is there twice"),
    "a scalar": (np.array(1.0), "an array without dimensions"),
}


@pytest.mark.parametrize(("rows", "message"), WRONG.values(), ids=WRONG)
def test_what_are_no_rows_is_said_before_anything_is_sent(
    client: Client, bridge: Bridge, rows: Any, message: str
) -> None:
    for predict in (client.predict, client.predict_batch):
        with pytest.raises((TypeError, ValueError), match=message):
            predict(rows)
    assert bridge.paths == []


SECRET = "4242.4242"

REFUSED = {
    "a type that JSON lacks": (objects(1.0, complex(SECRET)), "complex", None),
    "a duration": (objects(1.0, pd.Timedelta("4242s")), "Timedelta", None),
    "text": (objects(1.0, SECRET), "string", 422),
    "an infinity": (pd.Series([1.0, float("inf")]), "Infinity", 422),
}


@pytest.mark.parametrize(("column", "got", "status"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_row_column_and_type_and_no_value(
    client: Client, column: pd.Series, got: str, status: int | None
) -> None:
    frame = pd.DataFrame({"number": column})
    frame.index = pd.Index(["ok", "wrong"])
    for rows in (frame, frame.to_dict("records")):
        with pytest.raises(InvalidInput, match="row 1 column 'number'") as caught:
            client.predict(rows)
        (detail,) = caught.value.details
        assert (detail.row, detail.column) == (1, "number")
        assert detail.got.lower().startswith(got.lower()[:9])
        assert detail.index == ("wrong" if rows is frame else None)
        assert caught.value.status == status
        assert "4242" not in str(caught.value)
        assert "wrong" not in str(caught.value)
