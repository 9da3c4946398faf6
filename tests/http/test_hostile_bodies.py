"""A worker answers others while it reads a body that was made to keep it busy."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from tests.http.in_process import Application, running_application
from tests.http.messages import ARROW, NPY, arrow
from tests.protocols.asking import CSV
from tests.support.models import frame

MB = 1_000_000
JSON = "application/json"


@pytest.fixture(scope="module")
def service(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(tmp_path_factory.mktemp("worker"), registry_uri, "cancer") as running:
        yield running


def in_one_row(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def bits(n_bytes: int) -> pa.Array:
    return pa.Array.from_buffers(pa.bool_(), 8 * n_bytes, [None, pa.py_buffer(bytes(n_bytes))])


def legal(n_bytes: int) -> bytes:
    row = json.dumps(frame("cancer").to_dict("records")[0]).encode()
    return b'{"instances": [' + b",".join([row] * (n_bytes // len(row))) + b"]}"


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def split(n_bytes: int, cell: str = "1.5") -> bytes:
    rows = frame("cancer")
    row = "[" + ",".join([cell] * rows.shape[1]) + "]"
    data = ",".join([row] * (n_bytes // len(row)))
    return f'{{"dataframe_split": {{"columns": {json.dumps(list(rows))}, "data": [{data}]}}}}'.encode()


def lines(n_bytes: int) -> bytes:
    names = list(frame("cancer"))
    line = ",".join(["1.5"] * len(names)) + "\n"
    return f"{','.join(names)}\n".encode() + line.encode() * (n_bytes // len(line))


BODIES = {
    "empty lists": (JSON, 422, lambda: b'{"instances":[' + b"[[]]," * (6 * MB) + b"[[]]]}"),
    "empty lists in a batch": (JSON, 422, lambda: b"[" + b"[[]]," * (6 * MB) + b"[[]]]"),
    "empty rows": (JSON, 422, lambda: b'{"instances":[' + b"{}," * (8 * MB) + b"{}]}"),
    "one row": (JSON, 413, lambda: b'{"instances":[[' + b"[]," * (8 * MB) + b"[]]]}"),
    "another key": (JSON, 422, lambda: b'{"rows":[' + b"[]," * (8 * MB) + b"[]]}"),
    "params": (JSON, 413, lambda: b'{"instances":[],"params":{"a":[' + b"[]," * (8 * MB) + b"[]]}}"),
    "never closed": (JSON, 400, lambda: b"[" * (20 * MB)),
    "digits": (JSON, 422, lambda: b'{"instances":[{"mean radius":' + b"9" * (20 * MB) + b"}]}"),
    "rows": (JSON, 200, lambda: legal(20 * MB)),
    "list<bool>": (ARROW, 422, lambda: arrow(pa.table({"mean radius": in_one_row(bits(5 * MB))}))),
    "list<bool> nobody asked for": (ARROW, 422, lambda: arrow(pa.table({"x": in_one_row(bits(5 * MB))}))),
    "empty batches": (
        ARROW,
        422,
        lambda: arrow(pa.Table.from_batches([pa.record_batch({"x": pa.array([], pa.int8())})] * 100_000)),
    ),
    "/invocations, rows": (JSON, 200, lambda: split(8 * MB)),
    "/invocations, NaN": (JSON, 200, lambda: split(8 * MB, "NaN")),
    "/invocations, empty lists": (JSON, 413, lambda: b'{"inputs":[' + b"[[]]," * (3 * MB) + b"[[]]]}"),
    "/invocations, empty rows": (JSON, 413, lambda: b'{"dataframe_records":[' + b"{}," * (4 * MB) + b"{}]}"),
    "/invocations, digits": (JSON, 400, lambda: b'{"inputs":' + b"9" * (15 * MB) + b"}"),
    "/invocations, CSV": (CSV, 200, lambda: lines(8 * MB)),
    "/invocations, commas": (CSV, 413, lambda: lines(1) + b"," * (20 * MB)),
    "a broken header": (NPY, 400, lambda: npy_header("(" * 10_000)),
    "another broken header": (NPY, 400, lambda: npy_header("{'descr': " + "[(" * 5_000)),
}


@pytest.mark.parametrize("name", BODIES)
def test_livez_answers_while_a_body_is_read(service: Application, name: str) -> None:
    """Processor time, not time: the machine may be busy with something else."""
    media, status, make = BODIES[name]
    body = make()
    path = "/v1/predict" if media == JSON and "batch" not in name else "/v1/predict_batch"
    path = "/invocations" if name.startswith("/invocations") else path
    longest = 0.0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.post, path, content=body, headers={"content-type": media})
        while not answer.done():
            before = time.process_time()
            assert service.get("/livez").status_code == 200
            longest = max(longest, time.process_time() - before)
    assert answer.result().status_code == status, answer.result().text[:300]
    assert longest < 0.5


def test_a_large_body_is_answered_as_a_small_one_is(service: Application) -> None:
    rows = frame("cancer").to_dict("records")
    n = 2_000
    many = (rows * (n // len(rows) + 1))[:n]
    body = json.dumps({"instances": many}, indent=1).encode()
    assert len(body) > MB
    large = service.post("/v1/predict", content=body, headers={"content-type": JSON}).json()["predictions"]
    small = service.predict(rows)["predictions"]
    assert len(large) == n
    got, want = (
        np.array([list(entry["probabilities"].values()) for entry in entries])
        for entries in (large[: len(rows)], small)
    )
    np.testing.assert_array_equal(got, want)
