"""What a model gets from the log is what it got from the caller: values, types, missing ones."""

import json

import pytest

from scripts.lifecycle import LifecycleError
from scripts.replaying.columns import check_columns, to_cells
from serving.codecs.json import JsonDecoder
from serving.codecs.npy import named_to_inputs
from serving.model.schema import parse_schema
from tests.monitoring.prediction_log.answered import answer, finished, logged, manifest_of
from tests.monitoring.prediction_log.test_encoding import EVERY_KIND, FULL


def tensor(dtype: str, *shape: int):
    return manifest_of(
        {"name": "t", "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}
    )


NESTED = manifest_of(
    {
        "name": "person",
        "type": "object",
        "properties": {
            "born": {"type": "datetime", "required": True},
            "photo": {"type": "binary", "required": False},
            "scores": {"type": "array", "items": {"type": "float"}, "required": False},
        },
    },
    {"name": "tags", "type": "map", "values": {"type": "array", "items": {"type": "boolean"}}},
    {"name": "raw", "type": "any"},
)
NEVER_MISSING = manifest_of(
    {"name": "n", "type": "integer", "required": True}, {"name": "flag", "type": "boolean", "required": True}
)
CASES = {
    "every kind": (
        EVERY_KIND,
        [FULL, {}, FULL | {"big": -(2**63), "short": None, "text": "", "day": "1999-12-31"}],
    ),
    "every kind, none missing": (EVERY_KIND, [FULL, FULL]),
    "every kind, all missing": (EVERY_KIND, [{}, {}]),
    "None for a missing value": (
        manifest_of(
            {"name": "x", "type": "double"}, {"name": "s", "type": "string"}, nulls={"x": "None", "s": "None"}
        ),
        [{"x": 0.1, "s": "a"}, {}],
    ),
    "nested": (
        NESTED,
        [
            {
                "person": {"born": "2024-05-01T01:02:03.000000004", "photo": "AP8=", "scores": [0.1]},
                "tags": {"a": [True]},
            },
            {"person": {"born": "2024-05-01"}, "raw": [1, {"b": None}, "c", 2.5]},
            {"raw": "text"},
        ],
    ),
    "never missing": (NEVER_MISSING, [{"n": -3, "flag": False}, {"n": 2**31 - 1, "flag": True}]),
    "tensor with a missing value": (
        tensor("float32", 2, 3),
        [[[0.1, None, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]],
    ),
    "tensor of another size": (tensor("float64", -1), [[0.1, 0.2], [0.3, 0.4]]),
    "half": (tensor("float16", 2), [[0.5, 65504], [1, 2]]),
    "bytes": (tensor("uint8", 2), [[0, 255], [1, 2]]),
    "large": (tensor("uint64", 1), [[2**64 - 1], [0]]),
    "booleans": (tensor("bool", 2), [[True, False], [False, True]]),
    "texts": (tensor("str", 2), [["a", "Größe"], ["", "b"]]),
    "scalars": (tensor("int64"), [1, 2**53 + 1]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_gets_what_the_caller_sent(case):
    manifest, instances = CASES[case]
    schema = parse_schema(manifest.inputs, nulls=manifest.nulls)
    body = json.dumps(
        {"instances": [{"t": one} if "t" in schema.names else one for one in instances]}
    ).encode()
    sent, _ = JsonDecoder(schema, 10).predict(body)
    table = logged(finished(sent, answer(len(instances)), manifest))
    cells = {column.name: to_cells(table[f"input_{column.name}"], column) for column in schema.columns}
    got = named_to_inputs(cells, table.num_rows, schema)
    for ours, theirs in zip(got.columns, sent.columns, strict=True):
        assert ours.dtype == theirs.dtype
        assert repr(ours.tolist()) == repr(theirs.tolist())  # NaN equals NaN, and None only None


def test_inputs_that_the_log_lacks_are_named_with_the_setting():
    schema = parse_schema(EVERY_KIND.inputs)
    names = [f"input_{name}" for name in schema.names if name not in {"n", "x", "text"}]
    with pytest.raises(LifecycleError) as raised:
        check_columns([*names, "hash_text"], schema, schema, "8")
    assert str(raised.value) == (
        "version 8 cannot be replayed: the prediction log lacks the values of its inputs 'n', 'x' "
        "(SERVING_LOG_EXCLUDE) and 'text' (SERVING_LOG_HASH)"
    )


def test_inputs_that_one_of_the_versions_does_not_have_may_be_absent():
    whole, part = (
        parse_schema(EVERY_KIND.inputs),
        parse_schema(manifest_of({"name": "x", "type": "double"}).inputs),
    )
    check_columns(["input_x"], whole, part, "8")
    check_columns(["input_x"], part, whole, "8")
