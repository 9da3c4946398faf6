"""What a row looks like in the log: the values that were sent and answered, with types of their own."""

import datetime as dt
import hashlib
import hmac
import json
import time

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from serving.codecs.json import check_params
from serving.model.schema import parse_schema
from serving.monitoring.prediction_log.encoding import Encoder, split
from serving.monitoring.prediction_log.rows import Rows
from serving.monitoring.prediction_log.selection import Selection
from serving.monitoring.prediction_log.tables import to_table
from serving.runtime import Output
from serving.settings import Settings
from tests.monitoring.prediction_log.answered import (
    answer,
    decoded,
    finished,
    logged,
    manifest_of,
    message,
    numbers,
)

EVERY_KIND = manifest_of(
    {"name": "flag", "type": "boolean"},
    {"name": "n", "type": "integer"},
    {"name": "big", "type": "long"},
    {"name": "short", "type": "float"},
    {"name": "x", "type": "double"},
    {"name": "text", "type": "string"},
    {"name": "bytes", "type": "binary"},
    {"name": "day", "type": "datetime"},
    {"name": "list", "type": "array", "items": {"type": "double"}},
    {"name": "odd name; \"'☃", "type": "object", "properties": {"a": {"type": "string", "required": True}}},
    {"name": "any", "type": "any"},
)
FULL = {
    "flag": True,
    "n": -3,
    "big": 2**53 + 1,
    "short": 0.5,
    "x": 0.1,
    "text": "Größe\n",
    "bytes": "AP8=",
    "day": "2024-05-01T01:02:03.000004",
    "list": [1.5, 2.0],
    "odd name; \"'☃": {"a": "b"},
    "any": "c",
}
EXPECTED = {
    "flag": True,
    "n": -3,
    "big": 2**53 + 1,
    "short": 0.5,
    "x": 0.1,
    "text": "Größe\n",
    "bytes": b"\x00\xff",
    "day": dt.datetime(2024, 5, 1, 1, 2, 3, 4),  # noqa: DTZ001  # as in requests: UTC without a zone
    "list": "[1.5,2.0]",
    "odd name; \"'☃": '{"a":"b"}',
    "any": '"c"',
}


@pytest.mark.parametrize("instances", [[FULL], [FULL, FULL], [FULL, {}], [{}, {}]])
def test_inputs_have_types_of_their_own_and_missing_ones_are_null(instances):
    inputs = decoded(EVERY_KIND, instances)
    table = logged(finished(inputs, answer(len(instances)), EVERY_KIND))
    got = table.select([f"input_{name}" for name in FULL]).to_pylist()
    names = {f"input_{name}": name for name in FULL}
    for row, sent in zip(got, instances, strict=True):
        assert {names[name]: getattr(v, "to_pydatetime", lambda v=v: v)() for name, v in row.items()} == (
            EXPECTED if sent else dict.fromkeys(FULL)
        )
    types = [str(table.schema.field(f"input_{name}").type) for name in FULL]
    assert types == [
        *("bool", "int32", "int64", "float", "double", "string", "binary", "timestamp[ns]"),
        *("string", "string", "string"),
    ]


def test_every_version_has_the_same_types_whatever_its_rows():
    schemas = {
        logged(finished(decoded(EVERY_KIND, rows), output, EVERY_KIND)).schema
        for rows in ([FULL], [{}], [FULL, {}])
        for output in (
            answer(len(rows)),
            Output(values=np.zeros(len(rows))),
            Output(labels=np.ones(len(rows))),
        )
    }
    assert len(schemas) == 1


@pytest.mark.parametrize("shape", [[-1, 2, 3], [-1, -1, 3]])
def test_a_tensor_is_a_nested_list(shape):
    manifest = manifest_of({"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}})
    rows = np.arange(12).reshape(2, 2, 3)
    table = logged(finished(decoded(manifest, rows.tolist()), answer(2), manifest))
    assert table["input_0"].to_pylist() == rows.tolist()
    assert table.schema.field("input_0").type == pa.list_(pa.list_(pa.float32()))


def test_requests_share_a_message_and_keep_what_is_theirs():
    first = finished(numbers(2), key=b"k1", request_id="a")
    second = finished(numbers(3, 2), key=None, request_id="b", role="challenger")
    table = logged(first, second)
    assert table["request_id"].to_pylist() == ["a", "a", "b", "b", "b"]
    assert table["row"].to_pylist() == [0, 1, 0, 1, 2]
    assert table["key"].to_pylist() == ["k1", "k1", None, None, None]
    assert table["role"].to_pylist() == ["champion"] * 2 + ["challenger"] * 3
    assert table["input_a"].to_pylist() == [0, 1, 2, 3, 4]
    assert table["label"].to_pylist() == ["no", "yes", "no", "no", "yes"]
    assert table["score"].to_pylist() == [0.25, 0.75, 0.25, 0.5, 0.75]
    assert table["probabilities"].to_pylist()[1] == [("no", 0.25), ("yes", 0.75)]
    assert table["latency_ms"].to_pylist() == pytest.approx([2.0] * 5, rel=1e-4)
    ages = [time.time() - moment.timestamp() for moment in table["time"].to_pylist()]
    assert all(-0.1 < age < 60 for age in ages)


def test_a_large_request_is_numbered_on_from_part_to_part():
    table = logged(finished(numbers(2_500)))
    assert table["row"].to_pylist() == list(range(2_500))
    assert table["input_a"].to_pylist() == list(range(2_500))


@pytest.mark.parametrize(
    ("output", "column", "expected"),
    [
        (Output(values=np.array([1.5, np.nan])), "value", [1.5, None]),
        (Output(values=np.array([3, 4])), "value", [3.0, 4.0]),
        (Output(labels=np.array([True, False])), "label", ["true", "false"]),
        (Output(labels=np.array([7, 8])), "label", ["7", "8"]),
        (Output(values=np.array([[1.0, 2.0], [3.0, 4.0]])), "output", ["[1.0,2.0]", "[3.0,4.0]"]),
        (Output(labels=np.array([["a", "b"], ["c", "d"]])), "output", ['["a","b"]', '["c","d"]']),
        (Output(values=np.array([{"a": 1}, None], dtype=object)), "output", ['{"a":1}', "null"]),
        # A forecast: not one result for each row.
        (Output(values=np.array([1.0, 2.0, 3.0])), "output", ["[1.0,2.0,3.0]", None]),
    ],
)
def test_outputs_of_every_kind(output, column, expected):
    table = logged(finished(numbers(2), output))
    assert table[column].to_pylist() == expected
    for other in {"label", "score", "value", "output"} - {column}:
        assert table[other].null_count == 2


SECRET = "0123456789abcdef0123456789abcdef"
TWO = manifest_of(
    {"name": "id", "type": "string"}, {"name": "n", "type": "long"}, {"name": "a", "type": "double"}
)


def sha(text: str) -> str:
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


def test_columns_are_left_out_and_hashed():
    inputs = decoded(TWO, [{"id": "Zoë", "n": 5, "a": 1.0}, {"a": 2.0}])
    table = logged(
        finished(inputs, answer(2), TWO), log_exclude="a", log_hash="id, n", log_hash_key=SECRET, log_key="id"
    )
    assert [
        name for name in table.column_names if "_" in name and name not in ("request_id", "latency_ms")
    ] == [
        "hash_id",
        "hash_n",
    ]
    assert table["hash_id"].to_pylist() == [sha("Zoë"), None]
    assert table["hash_n"].to_pylist()[0] == sha("5")
    assert table["key"].to_pylist() == [sha("Zoë"), None]


@pytest.mark.parametrize("settings", [{"log_exclude": "id", "log_hash": "key"}, {"log_hash": "key,id"}])
def test_nothing_of_what_is_left_out_or_hashed_leaves_the_worker(settings):
    inputs = decoded(TWO, [{"id": "a-secret-name", "n": 5, "a": 1.0}])
    request = finished(inputs, answer(1), TWO, key=b"a-secret-key")
    assert message(request).count(b"a-secret") == 2
    assert b"a-secret" not in message(request, log_hash_key=SECRET, **settings)


def test_all_inputs_can_be_left_out_and_the_key_stay():
    table = logged(finished(decoded(TWO, [{"id": "u1"}]), answer(1), TWO), log_exclude="*", log_key="id")
    assert not [name for name in table.column_names if name.startswith(("input_", "hash_"))]
    assert table["key"].to_pylist() == ["u1"]


def test_names_that_no_input_has_are_known():
    selection = Selection.of(
        Settings(log_exclude="a,nme,*", log_hash="key,id", log_hash_key=SECRET, log_key="idd")
    )
    assert selection.unknown_names(["a", "id"], []) == ["idd", "nme"]
    assert selection.unknown_names(["a", "id"], ["nme", "idd"]) == ["idd"]  # a parameter is never the key


def test_a_sampled_share_is_the_same_everywhere():
    ids = [f"request-{number}" for number in range(4_000)]
    workers = [Selection.of(Settings(log_percent=25)) for _ in range(2)]
    first, second = ([worker.includes(one) for one in ids] for worker in workers)
    assert first == second
    assert sum(first) / len(ids) == pytest.approx(0.25, abs=0.03)  # 4 standard deviations


def test_probabilities_by_class_are_those_of_the_answer():
    manifest = manifest_of({"name": "a", "type": "double"}, classes=[1, 2, 3])
    matrix = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    output = Output(np.array([2, 3]), matrix)
    table = logged(finished(numbers(2), output, manifest))
    assert [dict(row) for row in table["probabilities"].to_pylist()] == [
        dict(zip("123", row, strict=True)) for row in matrix.tolist()
    ]
    assert table["score"].to_pylist() == [0.5, 0.8]
    assert json.loads(f"[{','.join(table['label'].to_pylist())}]") == [2, 3]


PLAIN = manifest_of(
    {"name": "a", "type": "double"},
    {"name": "text", "type": "string"},
    {"name": "n", "type": "integer", "required": True},
    {"name": "b", "type": "double"},
    {"name": "flag", "type": "boolean", "required": True},
    {"name": "day", "type": "datetime"},
)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"log_exclude": "a,n"},
        {"log_key": "n", "log_hash": "text,n,day", "log_hash_key": SECRET},
        {"log_key": "text", "log_exclude": "*"},
    ],
)
@pytest.mark.parametrize(
    "output",
    [
        answer(1),
        Output(values=np.array([2.5])),
        Output(labels=np.array([3])),
        Output(labels=np.array(["yes"])),
    ],
)
def test_single_rows_are_noted_in_less_memory_and_logged_alike(settings, output):
    rows = [
        {"a": 0.1, "text": "x", "n": 1, "b": 2.0, "flag": True, "day": "2024-05-01"},
        {"n": 2, "flag": False},
        {"a": 3.0, "text": "é", "n": 3, "flag": True, "day": "2024-05-01T10:00:00.5"},
    ]
    encoder = Encoder(PLAIN, Selection.of(Settings(**settings)))
    requests = [
        finished(decoded(PLAIN, [row]), output, PLAIN, request_id=str(row["n"]), key=b"k") for row in rows
    ]
    notes = [encoder.note(request) for request in requests]
    assert all(notes)  # the decoder's arrays are as the note expects them
    parts = [part for request in requests for part in split(request)]
    noted, whole = (
        to_table(msgspec.msgpack.decode(payload, type=Rows)).drop_columns(["time"])
        for payload in (encoder.encode_notes(notes), encoder.encode(parts))
    )
    assert noted.schema == whole.schema
    assert noted.to_pylist() == whole.to_pylist()


PARAMS = [
    {"name": "threshold", "type": "double", "default": 0.5},
    {"name": "token", "type": "binary", "default": ""},
    {"name": "words", "type": "string", "default": None, "shape": [-1]},
    {"name": "at", "type": "datetime", "default": None},
]
SENT = {"threshold": 0.1, "token": "AP8=", "words": ["Zoë"], "at": "2024-05-01T01:02:03.000000004"}


@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, SENT),
        ({"log_exclude": "words,token"}, {"threshold": 0.1, "at": SENT["at"]}),
        ({"log_exclude": "*"}, None),
    ],
)
def test_parameters_are_those_of_the_request(n_rows, settings, expected):
    manifest = manifest_of({"name": "a", "type": "double"}, params=json.dumps(PARAMS))
    params = check_params(SENT, parse_schema(manifest.inputs, manifest.params))
    inputs = decoded(manifest, [{"a": 1.0}] * n_rows)
    requests = [
        finished(inputs, answer(n_rows), manifest, params=given, request_id=name)
        for name, given in {"with": params, "without": {}}.items()
    ]
    encoder = Encoder(manifest, Selection.of(Settings(**settings)))
    assert encoder.unknown_names == []
    payloads = [message(*requests, **settings)]
    if n_rows == 1:
        payloads.append(encoder.encode_notes([encoder.note(request) for request in requests]))
    for payload in payloads:
        texts = to_table(msgspec.msgpack.decode(payload, type=Rows))["params"].to_pylist()
        assert [text and json.loads(text) for text in texts] == [expected] * n_rows + [None] * n_rows


def test_messages_of_services_before_parameters_were_logged_are_read_and_theirs_read_ours():
    payload = message(finished(numbers(2)))
    fields = msgspec.msgpack.decode(payload)
    older = msgspec.msgpack.encode(fields[:-1])
    assert to_table(msgspec.msgpack.decode(older, type=Rows)) == to_table(
        msgspec.msgpack.decode(payload, type=Rows)
    )
    newer = msgspec.msgpack.encode([*fields, "a field to come"])
    assert msgspec.msgpack.decode(newer, type=Rows) == msgspec.msgpack.decode(payload, type=Rows)


def test_other_rows_are_not_noted():
    for manifest, row in ((EVERY_KIND, FULL), (TWO, {"id": "a"})):  # nested, and an integer that is missing
        encoder = Encoder(manifest, Selection.of(Settings()))
        assert encoder.note(finished(decoded(manifest, [row]), answer(1), manifest)) is None
