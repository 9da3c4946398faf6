"""Damaged bodies of every form: read or refused, soon, in a bounded part of the memory.

FUZZ_SECONDS is how long each form is tried, FUZZ_SEED what chance begins with; `make fuzz` takes half an hour.
"""

import io
import json
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.codecs.arrow import arrow_to_inputs
from serving.codecs.csv import csv_to_inputs
from serving.codecs.json import JsonDecoder
from serving.codecs.mlflow_json import mlflow_json_to_inputs
from serving.codecs.npy import npy_to_inputs
from serving.codecs.parquet import parquet_to_inputs
from serving.errors import RequestError
from serving.model.schema import Column, Form, Kind, Param, Schema, Type
from tests.fuzz.mutations import mutate

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("FUZZ_SEED", "2026"))

LONGEST_SECONDS, SECONDS_PER_BYTE = 0.5, 4e-6
"""Processor time of one body, whatever else the machine does. Only long bodies come to the second part, and these are
read in a thread: a value that only the thorough way takes costs some microseconds."""

MEMORY_MB = 500
"""What the process may have grown by at any time."""

MAX_ROWS = 10_000


def column(name: str, kind: Kind, **more) -> Column:
    return Column(name, Type(kind, **more), required=kind not in (Kind.LONG, Kind.BINARY))


FLAT = Schema(
    (
        column("a", Kind.DOUBLE),
        column("b", Kind.STRING),
        column("c", Kind.LONG),
        column("d", Kind.BOOLEAN),
        column("e", Kind.DATETIME),
        column("f", Kind.BINARY),
    ),
    Form.RECORD,
    (Param("p", Type(Kind.LONG)), Param("q", Type(Kind.DOUBLE), is_list=True)),
)
NESTED = Schema(
    (
        column("a", Kind.ARRAY, items=Type(Kind.DOUBLE)),
        column("b", Kind.MAP, items=Type(Kind.STRING)),
        column("c", Kind.ANY),
        column("d", Kind.OBJECT, properties=(column("x", Kind.DOUBLE), column("y", Kind.STRING))),
        column("e", Kind.ARRAY, items=Type(Kind.ARRAY, items=Type(Kind.LONG))),
    ),
    Form.RECORD,
)
TENSOR = Schema((column("0", Kind.TENSOR, dtype="float32", shape=(-1, 2)),), Form.BARE)
UNNAMED = Schema(tuple(column(str(i), Kind.DOUBLE) for i in range(3)), Form.ARRAY)
SCHEMAS = [FLAT, NESTED, TENSOR, UNNAMED]

FLAT_ROW = {"a": 1.5, "b": 'text, "x"', "c": 3, "d": True, "e": "2024-02-29T12:00:00", "f": "YQ=="}
NESTED_ROW = {
    "a": [1.0, 2.5],
    "b": {"k": "v"},
    "c": {"deep": [1, {"x": None}]},
    "d": {"x": 1, "y": "z"},
    "e": [[1], []],
}


def json_bodies() -> list[bytes]:
    tensor, rows = [[1, 2], [3, 4]], [[1, 2.5, 3]] * 3
    documents = [
        {"instances": [FLAT_ROW] * 3, "params": {"p": 1, "q": [1, 2.5]}},
        {"params": {}, "instances": [NESTED_ROW] * 3},
        {"instances": [tensor] * 3},
        {"instances": rows},
        rows,
        [list(FLAT_ROW.values())] * 2,
        [tensor] * 2,
        {"instances": [FLAT_ROW] * 9_000},
        {"instances": [NESTED_ROW] * 9_000},
    ]
    return [json.dumps(document).encode() for document in documents]


def npy_bodies() -> list[bytes]:
    records = np.zeros(3, [("a", "<f8"), ("b", "<U4"), ("c", ">i4"), ("d", "?"), ("e", "<M8[s]")])
    out = []
    for array in (records, np.ones((3, 3)), np.ones((2, 3, 2), "f4", order="F"), np.ones((2, 6), "<U3")):
        file = io.BytesIO()
        np.save(file, array)
        out.append(file.getvalue())
    return out


def arrow_bodies() -> list[bytes]:
    def stream(*batches: pa.RecordBatch, **options: bool) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return sink.getvalue().to_pybytes()

    moment = pa.array([0, None, 10**15], pa.timestamp("us", "UTC"))
    flat = {"a": [1.0, None, 2.0], "b": ["x", None, "é"], "c": [1, 2, None], "d": [True] * 3, "e": moment}
    views = {**flat, "f": [b"a", b"", b"bb"], "b": pa.array(["x", None, "a longer text"], pa.string_view())}
    words = [
        pa.record_batch({**flat, "f": [b"a"] * 3, "b": pa.array(text).dictionary_encode()})
        for text in (["x", "y", None], ["x", "y", "z"])
    ]
    nested = {
        "a": pa.array([[1.0, 2.0], []]),
        "b": pa.array([[("k", "v")], []], pa.map_(pa.string(), pa.string())),
        "c": pa.array([{"x": [1, None]}, None]),
        "d": pa.array([{"x": 1.0, "y": "z"}] * 2),
        "e": pa.array([[[1], []], []], pa.large_list(pa.list_(pa.int64()))),
    }
    fixed = pa.FixedSizeListArray.from_arrays(
        pa.FixedSizeListArray.from_arrays(pa.array(np.ones(12, "f4")), 2), 3
    )
    return [
        stream(pa.record_batch({**flat, "f": [b"a", b"", b"bb"]})),
        stream(pa.record_batch(views)),
        stream(*words),
        stream(*words, emit_dictionary_deltas=True),
        stream(*[pa.record_batch(nested)] * 3),
        stream(pa.record_batch({"0": fixed})),
        stream(pa.record_batch({"0": [1.0], "1": [2.0], "2": [3]})),
    ]


def mlflow_bodies() -> list[bytes]:
    names, values = list(FLAT_ROW), list(FLAT_ROW.values())
    documents = [
        {"dataframe_split": {"columns": names, "index": [0, 1], "data": [values] * 2}, "params": {"p": 1}},
        {"dataframe_records": [FLAT_ROW, {"b": "x", "d": 1}] * 2},
        {"dataframe_records": [FLAT_ROW] * 9_000},
        {"inputs": {name: [value] * 3 for name, value in FLAT_ROW.items()}},
        {"inputs": NESTED_ROW},
        {"instances": [NESTED_ROW] * 3},
        {"instances": [[[1, 2], [3, float("nan")]]] * 2},
        {"dataframe_split": {"data": [[1, 2.5, 3]] * 3}},
        {"inputs": [["1", 2.5, True]] * 3},
    ]
    return [json.dumps(document).encode() for document in documents]


def csv_bodies() -> list[bytes]:
    row = '1.5,"text, ""x""",3,True,2024-02-29T12:00:00,YQ=='
    texts = [
        f"a,b,c,d,e,f\n{row}\n",
        f"x,f,e,d,c,b,a\r\n0,,2024-02-29,false,,NA,-1e5\r\n{',' * 6}\r\n",
        "p,q,r\n1,2,3\n4,5,nan\n",
        "a,b,c,d,e,f\n" + f"{row}\n" * 5_000,
    ]
    return [text.encode() for text in texts]


def parquet_bodies() -> list[bytes]:
    def file(columns: dict[str, Any], **options: Any) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, **options)
        return sink.getvalue().to_pybytes()

    moment = pa.array([0, None, 10**15], pa.timestamp("us"))
    flat = {"a": [1.0, None, 2.0], "b": ["x", None, "é"], "c": [1, 2, None], "d": [True] * 3, "e": moment}
    flat["f"] = [b"a", b"", b"bb"]
    return [
        file(flat),
        file(flat, compression="zstd", data_page_version="2.0"),
        file(flat, use_dictionary=False, compression="gzip", row_group_size=1),
        file({**flat, "f": pa.array([b"aa"] * 3, pa.binary(2))}, compression="none", store_schema=False),
        file({"0": [1.0], "1": [2.0], "2": [3]}),
    ]


def decode_json(body: bytes, schema: Schema) -> None:
    decoder = JsonDecoder(schema, MAX_ROWS)
    for decode in (decoder.predict, decoder.batch):
        try:
            decode(body)
        except RequestError as error:
            refused = error
        else:
            return
    raise refused


def decode_npy(body: bytes, schema: Schema) -> None:
    npy_to_inputs(body, schema, MAX_ROWS)


def decode_arrow(body: bytes, schema: Schema) -> None:
    arrow_to_inputs(body, schema, MAX_ROWS)


def decode_mlflow(body: bytes, schema: Schema) -> None:
    mlflow_json_to_inputs(body, schema, MAX_ROWS)


def decode_csv(body: bytes, schema: Schema) -> None:
    csv_to_inputs(body, schema, MAX_ROWS)


def decode_parquet(body: bytes, schema: Schema) -> None:
    parquet_to_inputs(body, schema, MAX_ROWS)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("decode", "bodies"),
    [
        (decode_json, json_bodies),
        (decode_npy, npy_bodies),
        (decode_arrow, arrow_bodies),
        (decode_mlflow, mlflow_bodies),
        (decode_csv, csv_bodies),
        (decode_parquet, parquet_bodies),
    ],
    ids=["json", "npy", "arrow", "mlflow", "csv", "parquet"],
)
def test_a_damaged_body_is_read_or_refused(
    decode: Callable[[bytes, Schema], None], bodies: Callable[[], list[bytes]], tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    originals = bodies()
    outcomes: Counter[str] = Counter()
    for body in originals:
        for schema in SCHEMAS:
            try:
                decode(body, schema)
            except RequestError:
                continue
            outcomes["original"] += 1
    short = [body for body in originals if len(body) < 10_000]
    before = peak_mb()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        body = chance.choice(originals if chance.random() < 0.03 else short)
        body = mutate(body, chance.choice(originals), chance)
        schema = chance.choice(SCHEMAS)
        kept = tmp_path / "body"
        started = time.thread_time()
        try:
            decode(body, schema)
            outcomes["read"] += 1
        except RequestError as error:
            outcomes[type(error).__name__] += 1
        except BaseException:
            kept.write_bytes(body)
            pytest.fail(
                f"{len(body)} bytes for {schema.names} are neither read nor refused: {kept}", pytrace=True
            )
        taken, grown = time.thread_time() - started, peak_mb() - before
        if taken > LONGEST_SECONDS + SECONDS_PER_BYTE * len(body) or grown > MEMORY_MB:
            kept.write_bytes(body)
            pytest.fail(f"{len(body)} bytes for {schema.names} took {taken:.2f} s, {grown:.0f} MB: {kept}")
    print(f"{sum(outcomes.values())} bodies: {dict(outcomes)}; {peak_mb() - before:.0f} MB more at most")
    assert outcomes["original"] >= len(originals) * 3 // 4
    assert outcomes["read"]
    assert outcomes["MalformedBody"]
    assert outcomes["InvalidInput"]
