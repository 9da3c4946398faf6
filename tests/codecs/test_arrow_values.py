"""Arrow columns become objects as pyarrow makes them, as a whole, and only those that the signature asks for."""

import decimal
import functools
import math
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.codecs import arrow_values, limits
from serving.codecs.arrow import arrow_to_inputs
from serving.codecs.arrow_messages import MAX_MESSAGES
from serving.errors import InvalidInput, MalformedBody, PayloadTooLarge, RequestError
from serving.model.schema import Column, Form, Kind, Schema, Type
from tests.codecs.test_npy_arrow import arrow, column_of, one
from tests.support.soak import scaled

MAX_ROWS = 100_000
DOUBLE, LONG, STRING, BOOLEAN, ANY = (
    Type(kind) for kind in (Kind.DOUBLE, Kind.LONG, Kind.STRING, Kind.BOOLEAN, Kind.ANY)
)


def list_of(type_: Type) -> Type:
    return Type(Kind.ARRAY, items=type_)


def in_one_row(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def zeros(type_: pa.DataType, n: int, n_bytes: int) -> pa.Array:
    return pa.Array.from_buffers(type_, n, [None, pa.py_buffer(bytes(n_bytes))])


LEAVES = st.sampled_from(
    [
        (pa.int8(), st.integers(-128, 127)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.float32(), st.sampled_from([0.5, -0.0, 1e10])),
        (pa.float64(), st.floats(allow_nan=False)),
        (pa.bool_(), st.booleans()),
        (pa.string(), st.text(max_size=3)),
        (pa.large_string(), st.text(max_size=3)),
        (pa.binary(), st.binary(max_size=3)),
        (pa.binary(2), st.binary(min_size=2, max_size=2)),
        (pa.decimal128(5, 1), st.sampled_from([decimal.Decimal("1.5"), decimal.Decimal("-2.0")])),
        (pa.time64("us"), st.times()),
        (pa.date32(), st.dates()),
        (pa.timestamp("us"), st.datetimes()),
    ]
)
NAMES = st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True)


def nested(inner):
    def of_struct(drawn):
        names, fields = drawn
        fields = fields[: len(names)]
        values = st.fixed_dictionaries(
            {name: st.none() | value for name, (_, value) in zip(names, fields, strict=False)}
        )
        return pa.struct([(n, t) for n, (t, _) in zip(names, fields, strict=False)]), values

    lists = st.sampled_from([pa.list_, pa.large_list])
    return (
        st.tuples(lists, inner).map(lambda d: (d[0](d[1][0]), st.lists(st.none() | d[1][1], max_size=3)))
        | inner.map(lambda d: (pa.list_(d[0], 2), st.lists(st.none() | d[1], min_size=2, max_size=2)))
        | st.tuples(NAMES, st.lists(inner, min_size=3, max_size=3)).map(of_struct)
        | inner.map(
            lambda d: (
                pa.map_(pa.string(), d[0]),
                st.dictionaries(st.text(max_size=2), st.none() | d[1], max_size=3).map(
                    lambda x: list(x.items())
                ),
            )
        )
    )


@settings(max_examples=scaled(300, 20_000), deadline=None)
@given(st.recursive(LEAVES, nested, max_leaves=4), st.data())
def test_objects_are_those_that_pyarrow_makes(drawn, data):
    kind, value = drawn
    cells = data.draw(st.lists(st.none() | value, min_size=1, max_size=6))
    start = data.draw(st.integers(0, len(cells) - 1))
    try:
        array = pa.array(cells, kind)
    except pa.ArrowException:  # pyarrow cannot make a map of lists of missing lists, say
        return
    for part in (array, array.slice(start)):
        want = part.to_pylist(maps_as_pydicts="strict")
        got = arrow_values._to_cells(part, arrow_values.Load())
        assert repr(got) == repr(want)
        read = arrow_values.column_to_values(pa.chunked_array([part]), Column("a", ANY), arrow_values.Load())
        if isinstance(read, list):
            assert repr(read) == repr(want)


@pytest.mark.parametrize(
    ("values", "type_", "want"),
    [
        (pa.array([[1], [], [2, 3]]), list_of(DOUBLE), [[1.0], [], [2.0, 3.0]]),
        (pa.array([[1.0, 2.0]]), list_of(LONG), [[1, 2]]),
        (pa.array([[0.1]]), list_of(Type(Kind.FLOAT)), [[float(np.float32(0.1))]]),
        (pa.array([[True, False]]), list_of(BOOLEAN), [[True, False]]),
        (pa.array([["é", ""], []]), list_of(STRING), [["é", ""], []]),
        (pa.array([[[1], []], []]), list_of(list_of(LONG)), [[[1], []], []]),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), list_of(LONG), [[1, 2]]),
        (pa.array([{"x": 1}]), Type(Kind.MAP, items=LONG), [{"x": 1}]),
        (pa.array([["2024-01-01"]]), list_of(Type(Kind.STRING)), [["2024-01-01"]]),
        (pa.array(["YQ=="]), Type(Kind.BINARY), [b"a"]),
        (pa.array([None, None], pa.string()), DOUBLE, [None, None]),
        (pa.array([3, None]), Type(Kind.LONG), [3.0, None]),
        (pa.array([1, None, 1]).dictionary_encode(), DOUBLE, [1.0, None, 1.0]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_columns_of_lists_are_cast_as_a_whole(values, type_, want):
    got = column_of(arrow_to_inputs(arrow({"a": values}), one(type_, required=False), MAX_ROWS)).tolist()
    missing = [isinstance(cell, float) and math.isnan(cell) for cell in got]
    assert repr([None if m else cell for cell, m in zip(got, missing, strict=True)]) == repr(want)


@pytest.mark.parametrize(
    ("values", "type_", "path"),
    [
        (pa.array([[1, 2], [3, None]]), list_of(LONG), "a[1]"),
        (pa.array([[1.0], [2.0, 5.5]]), list_of(LONG), "a[1]"),
        (pa.array([[[1]], [[2], [2**53 + 1]]]), list_of(list_of(DOUBLE)), "a[1][0]"),
        (pa.array([[1], None]), list_of(LONG), "a"),
    ],
)
def test_a_value_inside_a_list_that_does_not_fit_is_named(values, type_, path):
    with pytest.raises(InvalidInput) as caught:
        arrow_to_inputs(arrow({"a": values}), one(type_), MAX_ROWS)
    assert [(d.row, d.column) for d in caught.value.details] == [(1, path)]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1, 2], [3, 4]], pa.list_(pa.int16(), 2)),
        pa.array([[1.0, 2.0], [3.0, 4.0]]),
        pa.array([[1, 2], [3, 4]], pa.large_list(pa.uint8())),
    ],
    ids=lambda values: str(values.type),
)
@pytest.mark.parametrize("shape", [(2,), (-1,)])
def test_lists_of_one_length_are_a_tensor_without_an_object(values, shape, monkeypatch):
    monkeypatch.setattr(arrow_values, "_to_cells", None)
    batch = pa.record_batch({"a": values})
    schema = one(Type(Kind.TENSOR, dtype="float32", shape=shape))
    got = column_of(arrow_to_inputs(arrow([batch, batch]), schema, MAX_ROWS))
    np.testing.assert_array_equal(got, np.array([[1, 2], [3, 4]] * 2, np.float32), strict=True)


def test_lists_in_lists_are_a_tensor():
    values = pa.FixedSizeListArray.from_arrays(
        pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12.0)), 2), 3
    )
    schema = one(Type(Kind.TENSOR, dtype="float64", shape=(3, 2)))
    got = column_of(arrow_to_inputs(arrow({"a": values}), schema, MAX_ROWS))
    np.testing.assert_array_equal(got, np.arange(12.0).reshape(2, 3, 2), strict=True)


MB = 1_000_000
BOOLEANS = in_one_row(zeros(pa.bool_(), 8 * MB, MB))
BYTES = zeros(pa.int8(), MB, MB)
EMPTY_TEXTS = pa.Array.from_buffers(
    pa.string(), MB // 4 - 1, [None, pa.py_buffer(bytes(MB)), pa.py_buffer(b"")]
)


@pytest.mark.parametrize(
    ("schema", "columns"),
    [
        (one(DOUBLE), {"a": BOOLEANS}),
        (one(list_of(STRING)), {"a": BOOLEANS}),
        (one(DOUBLE), {"a": [1.0], "b": BOOLEANS}),
        (one(LONG), {"a": in_one_row(BYTES)}),
        (one(LONG), {"a": pa.DictionaryArray.from_arrays(pa.array([7], pa.int32()), BYTES)}),
        (one(STRING), {"a": pa.DictionaryArray.from_arrays(pa.array([7], pa.int32()), EMPTY_TEXTS)}),
        (one(STRING), {"a": [1.0] * MAX_ROWS}),
    ],
    ids=[
        "another type",
        "another inner type",
        "unknown",
        "a list for a number",
        "dictionary",
        "dictionary of texts",
        "numbers for text",
    ],
)
def test_what_the_signature_does_not_ask_for_becomes_no_objects(schema, columns):
    """pyarrow's `to_pylist` makes 8 to 400 bytes of objects of each byte here."""
    body = arrow(columns)
    outcome = None
    tracemalloc.start()
    try:
        outcome = arrow_to_inputs(body, schema, MAX_ROWS)
    except RequestError as error:
        outcome = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(outcome, InvalidInput | PayloadTooLarge) or outcome.n_rows == 1
    assert peak < 100_000 + len(body) // 10


def test_more_values_than_fit_into_memory_are_too_large(monkeypatch):
    monkeypatch.setattr(limits, "request_bytes", 2**20)
    n = 100_000
    pairs = pa.MapArray.from_arrays(
        pa.array([0, n], pa.int32()), pa.array(map(str, range(n))), zeros(pa.int8(), n, n)
    )
    for values, type_ in (
        (in_one_row(zeros(pa.bool_(), n, n // 8)), list_of(BOOLEAN)),
        (in_one_row(zeros(pa.int8(), n, n)), ANY),
        (in_one_row(EMPTY_TEXTS), list_of(STRING)),
        (pairs, Type(Kind.MAP, items=LONG)),
        (in_one_row(pa.array([{"x": 1}] * n)), ANY),
    ):
        with pytest.raises(PayloadTooLarge, match="MB of memory"):
            arrow_to_inputs(arrow({"a": values}), one(type_), MAX_ROWS)


def test_batches_schemas_and_additions_to_dictionaries_are_counted():
    empty = pa.record_batch({"a": pa.array([], pa.float64())})
    with pytest.raises(PayloadTooLarge, match=f"more than {MAX_MESSAGES} batches"):
        arrow_to_inputs(arrow([empty] * (MAX_MESSAGES + 1)), one(DOUBLE), MAX_ROWS)
    for n_columns, error in ((5_000, InvalidInput), (30_000, PayloadTooLarge)):
        with pytest.raises(error) as caught:
            arrow_to_inputs(arrow({f"c{i}": [1.0] for i in range(n_columns)}), one(DOUBLE), MAX_ROWS)
        assert len(caught.value.details) <= 20
    long = pa.schema([("a", pa.float64())], metadata={"pandas": "x" * 2_000_000})
    with pytest.raises(PayloadTooLarge, match="schema"):
        arrow_to_inputs(arrow([empty.replace_schema_metadata(long.metadata)]), one(DOUBLE), MAX_ROWS)


def words_batches(n: int) -> list[pa.RecordBatch]:
    words = [f"word {i}" for i in range(100)]
    batches = []
    for position in range(n):
        words = [*words, f"more {position}"]
        column = pa.DictionaryArray.from_arrays(pa.array([len(words) - 1, 0]), pa.array(words))
        batches.append(pa.record_batch({"a": column}))
    return batches


@pytest.mark.parametrize("deltas", [True, False], ids=["added to", "replaced"])
def test_dictionaries_may_change_between_batches(deltas, monkeypatch):
    body = arrow(words_batches(5), emit_dictionary_deltas=deltas)
    got = column_of(arrow_to_inputs(body, one(STRING), MAX_ROWS)).tolist()
    assert got == [text for i in range(5) for text in (f"more {i}", "word 0")]
    monkeypatch.setattr(limits, "request_bytes", 4_000)
    if deltas:  # each of them copies all that was there
        with pytest.raises(PayloadTooLarge, match="dictionaries"):
            arrow_to_inputs(body, one(STRING), MAX_ROWS)


def test_rows_are_counted_before_they_are_read(monkeypatch):
    body = arrow([pa.record_batch({"a": np.zeros(60_000)})] * 2)
    monkeypatch.setattr("serving.codecs.arrow.table_to_inputs", None)
    with pytest.raises(PayloadTooLarge, match="120000 rows"):
        arrow_to_inputs(body, one(DOUBLE), MAX_ROWS)


@pytest.mark.parametrize("depth", [10, 60, 120, 400])
def test_types_in_types_are_refused(depth):
    kind = functools.reduce(lambda inner, _: pa.list_(inner), range(depth), pa.int8())
    body = pa.schema([("a", kind)]).serialize().to_pybytes()
    for type_ in (DOUBLE, list_of(DOUBLE)):
        with pytest.raises((InvalidInput, MalformedBody)):
            arrow_to_inputs(body, one(type_), MAX_ROWS)


def test_a_name_twice_inside_a_value_is_malformed():
    struct = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    keys = pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    for values in (struct, keys):
        with pytest.raises(MalformedBody):
            arrow_to_inputs(arrow({"a": values}), one(ANY), MAX_ROWS)


def test_keys_of_a_map_that_are_no_texts_are_refused():
    keys = pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64()))
    with pytest.raises(InvalidInput):
        arrow_to_inputs(arrow({"a": keys}), one(Type(Kind.MAP, items=LONG)), MAX_ROWS)


def test_an_optional_column_may_be_left_out():
    schema = Schema((Column("a", DOUBLE), Column("b", STRING, False)), Form.RECORD)
    assert arrow_to_inputs(arrow({"a": [1.0]}), schema, MAX_ROWS).n_rows == 1
