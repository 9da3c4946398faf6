"""`serving.prepare.checks.examples`: the reference sample, whatever is in its file."""

import json
from pathlib import Path

import pytest

from serving.model.schema import Column, Form, Kind, Schema, Type
from serving.prepare.checks.examples import MAX_SAMPLE_ROWS, logged_reference, reference_inputs

SCHEMA = Schema((Column("a", Type(Kind.DOUBLE)),), Form.RECORD)


def rows(n: int) -> bytes:
    return json.dumps({"instances": [{"a": i} for i in range(n)]}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"5",
        b"[]",
        b'{"rows": []}',
        *(f'{{"instances": {value}}}'.encode() for value in ("5", "1.5", "true", "null", '{"a": 1}')),
        b"[" * 100_000,
        b'{"instances": ["\xff"]}',
    ],
)
def test_a_file_of_another_form_is_ignored(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "reference.json").write_bytes(content)
    assert logged_reference(tmp_path) == []
    assert reference_inputs(tmp_path, SCHEMA) is None
    assert "reference.json is not of the form" in caplog.text


def test_rows_of_another_signature_are_no_reference(tmp_path: Path):
    (tmp_path / "reference.json").write_bytes(rows(10).replace(b'"a"', b'"b"'))
    assert reference_inputs(tmp_path, SCHEMA) is None


def test_of_a_long_sorted_file_rows_are_taken_from_everywhere(tmp_path: Path):
    (tmp_path / "reference.json").write_bytes(rows(5 * MAX_SAMPLE_ROWS))
    inputs = reference_inputs(tmp_path, SCHEMA)
    assert inputs is not None
    assert inputs.n_rows == MAX_SAMPLE_ROWS
    assert inputs.columns[0].mean() == pytest.approx(5 * MAX_SAMPLE_ROWS / 2, rel=0.01)


def test_without_a_file_there_is_none(tmp_path: Path):
    assert reference_inputs(tmp_path, SCHEMA) is None
