"""Large JSON bodies: read in pieces as they would be read at once, and refused before they fill the memory."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.codecs import json as json_codec
from serving.codecs import json_outline, limits
from serving.codecs.json import JsonDecoder
from serving.codecs.json_outline import find_long, text_bytes, weigh
from serving.errors import InvalidInput, MalformedBody, PayloadTooLarge, RequestError
from serving.model.schema import Column, Form, Kind, Param, Schema, Type
from tests.codecs.cells import assert_same_cells
from tests.codecs.test_json import ANYTHING, assert_same, schemas_and_rows
from tests.support.soak import scaled

DOUBLE, LONG, STRING = Type(Kind.DOUBLE), Type(Kind.LONG), Type(Kind.STRING)
ANY, LIST = Type(Kind.ANY), Type(Kind.ARRAY, items=DOUBLE)
MAX_ROWS = 100_000


def tensor(*shape: int, dtype: str = "float64") -> Type:
    return Type(Kind.TENSOR, dtype=dtype, shape=shape)


def schema_of(*types: Type, form: Form = Form.RECORD, required: bool = True) -> Schema:
    columns = tuple(Column(f"c{i}", type_, required) for i, type_ in enumerate(types))
    return Schema(columns, form, (Param("ids", LONG, is_list=True),))


FLAT = schema_of(DOUBLE, STRING)


def instances(rows: bytes, n_bytes: int = 0, after: bytes = b"") -> bytes:
    """A body with the rows, repeated until it has so many bytes."""
    n = max(1, n_bytes // (len(rows) + 1))
    return b'{"instances": [' + b",".join([rows] * n) + b"]" + after + b"}"


@pytest.fixture
def small(monkeypatch):
    """Makes every body a large one, of pieces of so many bytes."""

    def make(piece_bytes: int, long_bytes: int = 2) -> None:
        monkeypatch.setattr(json_codec, "LARGE_BYTES", 0)
        monkeypatch.setattr(json_outline, "PIECE_BYTES", piece_bytes)
        monkeypatch.setattr(json_outline, "LONG_BYTES", long_bytes)

    return make


def read(decode, body):
    try:
        return decode(body)
    except RequestError as error:
        return error


@settings(
    max_examples=scaled(200, 20_000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(schemas_and_rows(), st.integers(1, 40), st.integers(2, 60), st.sampled_from([None, 1]), st.booleans())
def test_a_body_in_pieces_is_read_as_it_is_read_at_once(
    small, monkeypatch, drawn, piece, long, indent, is_ascii
):
    schema, rows, leave_out = drawn
    records = [{n: v for n, v in zip(schema.names, row, strict=True) if n != leave_out} for row in rows]
    sent = {Form.BARE: [row[0] for row in rows], Form.ARRAY: rows, Form.RECORD: records}[schema.form]
    decoder = JsonDecoder(schema, 1_000)
    for decode, document in (
        (lambda body: decoder.predict(body)[0], {"instances": sent * 3}),
        (lambda body: decoder.predict(body)[0], {"params": {}, "instances": sent * 3}),
        (decoder.batch, (sent if schema.form is Form.BARE else rows) * 3),
    ):
        text = json.dumps(document, indent=indent, ensure_ascii=is_ascii)
        body = text.encode(errors="surrogatepass")
        monkeypatch.setattr(json_codec, "LARGE_BYTES", 10**9)
        want = read(decode, body)
        small(piece, long)
        got = read(decode, bytearray(body))
        assert type(got) is type(want)
        if not isinstance(want, RequestError):
            assert_same(got, want)
        elif "different shapes" not in str(want):  # which of several columns has them is not the same
            assert (str(got), got.details) == (str(want), want.details)


@settings(
    max_examples=scaled(200, 20_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(ANYTHING, max_size=6), st.integers(1, 30), st.sampled_from([None, 2]))
def test_what_lies_between_two_cuts_is_whole_elements(small, elements, piece, indent):
    small(piece)
    body = json.dumps(elements, indent=indent).encode()
    for span in find_long(body, 1):
        assert (span.start, span.stop) == (0, len(body) - 1)
        parts = [json.loads(b"[" + body[start:stop] + b"]") for start, stop in span.pieces]
        assert repr([e for part in parts for e in part]) == repr(json.loads(body))
        if len(parts) > 1:
            assert all(parts)


@pytest.mark.parametrize(
    ("around", "said"),
    [
        (b'"params" {}', "the body is not JSON: what is around its rows cannot be read"),
        (b'"\xff": 1', "the body is not JSON: it is not UTF-8 text"),
        (b'"params": ' + b"[" * 90_000 + b"]" * 90_000, "the body is nested too deeply"),
    ],
)
def test_what_is_wrong_around_rows_is_told(around, said):
    rows = b",".join([b'{"c0": 1}'] * 150_000)
    body = b'{"instances": [' + rows + b"], " + around + b"}"
    with pytest.raises(MalformedBody) as caught:
        JsonDecoder(schema_of(DOUBLE), 10**6).predict(body)
    assert str(caught.value) == said


def test_the_cuts_of_a_large_body_are_a_piece_apart():
    body = instances(b'{"c0": 1.5, "c1": "a, \\"b\\\\"}', 3_000_000)
    (span,) = find_long(body, 2)
    lengths = [stop - start for start, stop in span.pieces]
    assert len(lengths) > 3
    assert max(lengths) < 2 * json_outline.PIECE_BYTES


def test_long_members_beside_the_rows_are_told_from_them(small):
    small(16)
    decoder = JsonDecoder(FLAT, MAX_ROWS)
    row = b'{"c0": 1, "c1": "x"}'
    body = b'{"params": {"ids": [1, 2, 3]}, "in\\u0073tances": [' + b", ".join([row] * 9) + b"]}"
    inputs, params = decoder.predict(body)
    assert (inputs.n_rows, params) == (9, {"ids": [1, 2, 3]})
    for wrong, key in ((b"[1, 2, 3, 4]", "x"), (b'{"y": [1, 2]}', "x"), (b'"a long text"', "x")):
        with pytest.raises(InvalidInput) as caught:
            decoder.predict(instances(row, 100, b', "x": ' + wrong))
        assert [detail.column for detail in caught.value.details] == [key]
    with pytest.raises(InvalidInput, match="instances"):
        decoder.predict(b"[" + b",".join([row] * 9) + b"]")
    with pytest.raises(InvalidInput, match="array of rows"):
        decoder.batch(instances(row, 100))


def test_what_may_stand_before_a_body_may_stand_before_a_large_one(small):
    small(64)
    body = instances(b'{"c0": 1, "c1": "x"}', 200)
    for before in (b"\xef\xbb\xbf", b" \n" * 10_000):
        assert JsonDecoder(FLAT, MAX_ROWS).predict(before + body)[0].n_rows == 9


@pytest.mark.parametrize("piece", range(1, 40))
def test_rows_that_are_texts_are_not_cut_at_their_commas(small, piece):
    small(piece)
    rows = ["a,b,,c", ",", "", 'x"\\,', ",,,,,,,,,,,,,,,,,,,,,,", "[,{", "last"] * 2
    decoder = JsonDecoder(schema_of(STRING, form=Form.BARE), MAX_ROWS)
    for indent in (None, 3):
        assert decoder.batch(json.dumps(rows, indent=indent).encode()).columns[0].tolist() == rows


@pytest.mark.parametrize("n", [1_000, 100_000])
def test_at_most_20_unknown_keys_are_told_of_any_number(n):
    many = ", ".join(f'"k{i}": 0' for i in range(n)).encode()
    decoder = JsonDecoder(FLAT, MAX_ROWS)
    for body in (
        instances(b"{" + many + b"}"),
        instances(b'{"c0": 1, "c1": ""}', 0, b", " + many[:900_000].rpartition(b",")[0]),
        instances(b'{"c0": 1, "c1": ""}', 0, b', "params": {' + many + b"}"),
    ):
        tracemalloc.start()
        try:
            with pytest.raises(InvalidInput) as caught:
                decoder.predict(body)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(caught.value.details) == 20
        assert peak < 300 * n + 10**6


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [{"c0": 1},, {"c0": 2}]}',
        b'{"instances": [{"c0": 1}, {"c0": 2},]}',
        b'{"instances": [,{"c0": 1}, {"c0": 2}]}',
        b'{"instances": [{"c0": 1}, {"c0": 2}}}',
        b'{"instances": [{"c0": 1}, {"c0": 2]]}',
        b'{"instances": [{"c0": 1}, {"c0": "2]}',
        b'{"instances": [{"c0": 1}, {"c0": 2}]',
        b'{"instances": [{"c0": 1}, {"c0": 2}]}]',
        b'{"instances": [{"c0": 1} {"c0": 2}]}',
        b'{"instances": [{"c0": 1}, {"c0": 2}] 3}',
        b'{"instances": [{"c0": 1}, {"c0": 02}]}',
        b'{"instances": [{"c0": 1}, {"c0": "\xff"}]}',
        b'"instances": [{"c0": 1}, {"c0": 2}]',
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 8, 21, 1_000])
def test_what_is_not_json_is_malformed_wherever_it_is_cut(small, body, piece):
    small(piece)
    with pytest.raises(MalformedBody):
        JsonDecoder(schema_of(DOUBLE), MAX_ROWS).predict(body)


def test_errors_of_a_large_body_name_the_row_and_the_byte():
    row = b'{"c0": 1.5, "c1": "text"}'
    n = 60_000
    rows = [row] * n
    decoder = JsonDecoder(FLAT, MAX_ROWS)
    for wrong, got in ((b"NaN", "NaN"), (b'"1"', "string"), (b"1e999", "number too large")):
        rows[54_321] = b'{"c0": ' + wrong + b', "c1": "text"}'
        with pytest.raises(InvalidInput) as caught:
            decoder.predict(b'{"instances": [' + b",".join(rows) + b"]}")
        (detail,) = caught.value.details
        assert (detail.row, detail.column, detail.got) == (54_321, "c0", got)
    rows[54_321] = b'{"c0": 1.5 "c1": "text"}'
    body = b'{"instances": [' + b",".join(rows) + b"]}"
    with pytest.raises(MalformedBody, match=f"at byte {body.index(b'1.5 ') + 4}$"):
        decoder.predict(body)


def test_integers_with_and_without_missing_values_are_one_column(small):
    small(8)
    decoder = JsonDecoder(schema_of(LONG, required=False), MAX_ROWS)

    def column(*cells):
        return decoder.predict(json.dumps({"instances": [{"c0": cell} for cell in cells]}).encode())[
            0
        ].columns[0]

    assert column(1, 2, 3).dtype == np.int64
    np.testing.assert_array_equal(column(1, 2, None, 4), np.array([1, 2, math.nan, 4]), strict=True)
    assert_same_cells(column(2**60, 2, None, 4), np.array([2**60, 2, math.nan, 4], dtype=object))


LEGAL = {
    "texts of commas and brackets": (FLAT, b'{"c0": 1, "c1": "' + b",[{:" * 400 + b'"}'),
    "one text": (FLAT, b'{"c0": 1, "c1": "' + b"," * 4_000_000 + b'"}'),
    "pretty": (FLAT, json.dumps({"c0": 0.25, "c1": "a" * 50}, indent=12).encode()),
    "quotes": (FLAT, b'{"c0": 1, "c1": "' + b'\\"\\\\' * 500 + b'"}'),
    "lists": (schema_of(LIST), b'{"c0": [' + b", ".join([b"0.125"] * 768) + b"]}"),
    "anything": (schema_of(ANY), b'{"c0": {"a": [1, "x", {"b": null}], "c": "' + b"y" * 300 + b'"}}'),
    "a tensor": (schema_of(tensor(224, 224, 3)), None),
    "rows of tensors": (schema_of(tensor(-1), form=Form.BARE), b"[" + b",".join([b"0.5"] * 100) + b"]"),
    "numbers": (schema_of(DOUBLE, form=Form.BARE), b"0.5" + b"0" * 60),
}


@pytest.mark.parametrize("name", LEGAL)
def test_a_large_legal_body_is_read(name):
    schema, row = LEGAL[name]
    if row is None:
        row = json.dumps({"c0": np.full((224, 224, 3), 0.5).tolist()}).encode()
    body = instances(row, 4_000_000)
    inputs, _ = JsonDecoder(schema, MAX_ROWS).predict(body)
    assert inputs.n_rows == max(1, 4_000_000 // (len(row) + 1))
    one, _ = JsonDecoder(schema, MAX_ROWS).predict(instances(row))
    assert all(repr(a[-1]) == repr(b[0]) for a, b in zip(inputs.columns, one.columns, strict=True))


SIZE = 6_000_000
HOSTILE = {
    "empty lists": (FLAT, instances(b"[[]]", SIZE)),
    "empty rows": (schema_of(*[DOUBLE] * 5, required=False), instances(b"{}", SIZE)),
    "deep": (FLAT, b'{"instances": ' + b"[" * (SIZE // 2) + b"]" * (SIZE // 2) + b"}"),
    "never closed": (FLAT, b"[" * SIZE),
    "unknown key": (FLAT, b'{"instances": [], "x": [' + b"[]," * (SIZE // 3) + b"[]]}"),
    "another shape": (FLAT, b"[" + b"[]," * (SIZE // 3) + b"[]]"),
    "digits": (FLAT, instances(b'{"c0": ' + b"9" * SIZE + b', "c1": "x"}')),
    "blanks": (FLAT, b" " * SIZE),
    "backslashes": (FLAT, instances(b'{"c0": 1, "c1": "' + b"\\" * SIZE + b'"}')),
    "rows": (schema_of(DOUBLE, form=Form.BARE), instances(b"0", SIZE)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_body_is_refused_for_is_seen_before_it_is_objects(name):
    """Parsed at once, empty lists take 36 to 40 bytes of memory for each of the body."""
    schema, body = HOSTILE[name]
    decoder = JsonDecoder(schema, 50_000)
    tracemalloc.start()
    try:
        refused = read(decoder.predict, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(refused, RequestError) or name == "backslashes"
    assert peak < 6 * len(body)


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (schema_of(ANY), instances(b'{"c0": [' + b"[]," * 400_000 + b"[]]}")),
        (schema_of(ANY), instances(b'{"c0": {"a": [' + b"[]," * 40 + b"[]]}}", 1_500_000)),
        (schema_of(LIST), instances(b'{"c0": [' + b"0," * 800_000 + b"0]}")),
        (schema_of(tensor(-1, -1)), instances(b'{"c0": [' + b"[]," * 400_000 + b"[]]}")),
        (
            schema_of(DOUBLE),
            instances(b'{"c0": 1}', 0, b', "params": {"ids": [' + b"0," * 800_000 + b"0]}"),
        ),
        (schema_of(*[STRING] * 9, form=Form.ARRAY), instances(b'["ab"' + b',"ab"' * 8 + b"]", 4_000_000)),
    ],
    ids=["one row", "many rows", "numbers", "tensor", "params", "texts"],
)
def test_what_would_not_fit_into_memory_is_too_large(schema, body, monkeypatch):
    monkeypatch.setattr(limits, "request_bytes", 2**25)
    with pytest.raises(PayloadTooLarge, match="MB of memory"):
        JsonDecoder(schema, 10**6).predict(body)


def test_a_weight_is_what_the_objects_take():
    """Against the memory that Python says it has given out."""
    for text in (
        b"[" + b"[]," * 10_000 + b"[]]",
        b"[" + b'{"a":1.5},' * 10_000 + b"1]",
        b"[" + b"1234567.5," * 10_000 + b"1]",
    ):
        tracemalloc.start()
        try:
            parsed = json.loads(text)
            taken = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert taken <= weigh(text) <= 3 * taken
        assert parsed
    assert weigh(b'"' + b",[{:" * 100 + b'"') == 0
    assert [text_bytes(t.encode()) for t in ("ab", "aü", "a😀", "a\\u00fc")] == [2, 6, 20, 28]


def test_more_beside_the_rows_than_is_parsed_at_once_is_too_large():
    with pytest.raises(PayloadTooLarge, match="beside its rows"):
        JsonDecoder(FLAT, MAX_ROWS).predict(
            instances(b'{"c0": 1, "c1": ""}', 0, b', "x": "' + b"y" * 2_000_000 + b'"')
        )
