"""Parquet: every way of writing it, and what would expand without a limit or end the process."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.codecs import limits
from serving.codecs.parquet import parquet_to_inputs
from serving.errors import MalformedBody, PayloadTooLarge
from serving.model.schema import Column, Form, Kind, Schema, Type

SCHEMA = Schema((Column("a", Type(Kind.DOUBLE)), Column("b", Type(Kind.STRING))), Form.RECORD)
TABLE = {"x": [[1], [2]], "b": ["text", None], "a": [1.5, 2.0]}


def file(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        *({"compression": name} for name in ("none", "snappy", "gzip", "zstd", "brotli", "lz4")),
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"row_group_size": 1},
        {"write_page_checksum": True},
        {"store_schema": False},
        {"use_dictionary": False, "column_encoding": {"a": "BYTE_STREAM_SPLIT"}},
    ],
    ids=str,
)
def test_it_is_read_however_it_is_written(options: dict[str, Any]) -> None:
    a, b = parquet_to_inputs(file(TABLE, **options), SCHEMA, 10).columns
    assert a.tolist() == [1.5, 2.0]
    assert b.tolist()[0] == "text"
    assert np.isnan(b.tolist()[1])


def test_rows_share_a_long_text() -> None:
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50_000, np.int32)), pa.array(["x" * 1_000_000]))
    inputs = parquet_to_inputs(file({"a": np.zeros(50_000), "b": words}), SCHEMA, 100_000)
    assert inputs.n_rows == 50_000
    assert inputs.object_bytes < 5_000_000


def test_pages_are_weighed_before_they_are_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    body = file({"a": [1.0], "b": ["x" * 20_000_000]}, compression="zstd")
    assert len(body) < 10_000
    monkeypatch.setattr(limits, "request_bytes", 10_000_000)
    monkeypatch.setattr(pq.ParquetFile, "read", None)
    with pytest.raises(PayloadTooLarge):
        parquet_to_inputs(body, SCHEMA, 10)


def test_texts_that_repeat_the_ones_before_are_refused() -> None:
    body = file({"a": [1.0], "b": ["x"]}, use_dictionary=False, column_encoding={"b": "DELTA_BYTE_ARRAY"})
    with pytest.raises(MalformedBody, match="DELTA_BYTE_ARRAY"):
        parquet_to_inputs(body, SCHEMA, 10)


def test_a_footer_that_claims_fewer_rows_is_refused() -> None:
    body = bytearray(file({"a": np.zeros(63), "b": ["x"] * 63}))
    length = int.from_bytes(body[-8:-4], "little")
    footer = bytes(body[-8 - length : -8])
    # Zigzag of 63 rows, of the file.
    start = len(body) - 8 - length + footer.index(bytes([0x16, 126]))
    body[start + 1] = 2
    with pytest.raises(MalformedBody, match="number of rows"):
        parquet_to_inputs(bytes(body), SCHEMA, 100)
