"""`.npy` and Arrow bodies, written by NumPy and pyarrow, and read back by them."""

import contextlib
import io
import os
import pickle
import random

import numpy as np
import pyarrow as pa
import pytest

from serving.codecs import limits
from serving.codecs.arrow import array_to_arrow, arrow_to_inputs
from serving.codecs.npy import array_to_npy, npy_to_inputs
from serving.errors import InvalidInput, MalformedBody, PayloadTooLarge, RequestError
from serving.model.schema import Column, Form, Kind, Schema, Type
from tests.codecs.cells import assert_same_cells

MAX_ROWS = 1_000
DOUBLE, LONG, STRING = Type(Kind.DOUBLE), Type(Kind.LONG), Type(Kind.STRING)
TWO_DOUBLES = Schema((Column("a", DOUBLE), Column("b", DOUBLE)), Form.RECORD)


def one(type_: Type | Kind, required: bool = True) -> Schema:
    type_ = type_ if isinstance(type_, Type) else Type(type_)
    return Schema((Column("a", type_, required),), Form.RECORD)


def tensor(dtype: str, *shape: int) -> Schema:
    return Schema((Column("0", Type(Kind.TENSOR, dtype=dtype, shape=shape)),), Form.BARE)


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def arrow(batches: dict | list[pa.RecordBatch], **options) -> bytes:
    if isinstance(batches, dict):
        batches = [pa.record_batch(batches)]
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return out.getvalue().to_pybytes()


def column_of(inputs):
    (column,) = inputs.columns
    return column


# ---------------------------------------------------------------- .npy


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f2", "<i8", ">i4", "|u1", ">u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_in_any_order_and_byte_order(dtype, order):
    array = np.asarray([[0, 1], [2, 3], [4, 5]], dtype=dtype, order=order)
    a, b = npy_to_inputs(npy(array), TWO_DOUBLES, MAX_ROWS).columns
    np.testing.assert_array_equal(a, np.array([0.0, 2.0, 4.0]), strict=True)
    np.testing.assert_array_equal(b, np.array([1.0, 3.0, 5.0]), strict=True)


@pytest.mark.parametrize(
    ("array", "type_"), [(np.array(["a", "ß"]), STRING), (np.array([1.0, np.nan]), DOUBLE)]
)
def test_one_column_without_a_name_may_have_one_dimension(array, type_):
    schema = Schema((Column("0", type_),), Form.BARE)
    for given in (array, array[:, np.newaxis]):
        inputs = npy_to_inputs(npy(given), schema, MAX_ROWS)
        assert inputs.n_rows == 2
        np.testing.assert_array_equal(column_of(inputs), array.astype(column_of(inputs).dtype))
    with pytest.raises(InvalidInput):
        npy_to_inputs(npy(array), one(type_), MAX_ROWS)


def test_the_fields_of_a_structured_array_are_columns_by_name():
    array = np.array([("x", 2**60, 0.5)], dtype=[("c", "<U3"), ("b", ">i8"), ("a", ">f8")])
    schema = Schema((Column("a", DOUBLE), Column("b", LONG), Column("c", STRING)), Form.RECORD)
    a, b, c = npy_to_inputs(npy(array), schema, MAX_ROWS).columns
    assert (a.tolist(), b.tolist(), c.tolist()) == ([0.5], [2**60], ["x"])
    assert (a.dtype, b.dtype, c.dtype) == (np.float64, np.int64, object)


def test_the_fields_of_a_structured_array_may_be_tensors():
    array = np.array([([1, 2],), ([3, 4],)], dtype=[("a", "f8", (2,))])
    schema = one(Type(Kind.TENSOR, dtype="float64", shape=(2,)))
    np.testing.assert_array_equal(
        column_of(npy_to_inputs(npy(array), schema, MAX_ROWS)),
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        strict=True,
    )


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, dtype=[("a", "f8")]),
        np.zeros(2, dtype=[("a", "f8"), ("b", "f8"), ("c", "f8")]),
        np.zeros(2, dtype=[("a", "f8", (2,)), ("b", "f8")]),
        np.zeros((2, 2), dtype=[("a", "f8"), ("b", "f8")]),
        np.zeros(2, dtype=[("a", [("x", "f8")]), ("b", "f8")]),
        np.zeros((2, 1)),
        np.zeros((2, 3)),
        np.zeros((2, 2, 1)),
        np.zeros(2),
        np.zeros(()),
        np.zeros((0, 2)),
        np.zeros((2, 2), dtype=bool),
        np.zeros((2, 2), dtype="U3"),
        np.zeros((2, 2), dtype="S3"),
        np.zeros((2, 2), dtype=complex),
        np.zeros((2, 2), dtype="M8[s]"),
        np.full((2, 2), np.inf),
        np.full((2, 2), 2**53 + 1),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_that_does_not_fit_the_signature_is_invalid(array):
    with pytest.raises(InvalidInput):
        npy_to_inputs(npy(array), TWO_DOUBLES, MAX_ROWS)


@pytest.mark.parametrize("value", [2**53, 2**53 + 2, -(2**63), 2**62])
def test_an_integer_that_a_double_holds_is_the_same_double(value):
    assert column_of(npy_to_inputs(npy(np.array([[value]])), one(DOUBLE), MAX_ROWS)).tolist() == [
        float(value)
    ]


def test_an_integer_that_no_double_holds_is_refused_with_its_row_and_column():
    array = np.zeros((100, 2), dtype=np.int64)
    array[37, 1] = 2**53 + 1
    with pytest.raises(InvalidInput) as caught:
        npy_to_inputs(npy(array), TWO_DOUBLES, MAX_ROWS)
    (detail,) = caught.value.details
    assert (detail.row, detail.column) == (37, "b")


def test_at_most_20_rows_are_told():
    with pytest.raises(InvalidInput) as caught:
        npy_to_inputs(npy(np.full((500, 2), np.inf)), TWO_DOUBLES, MAX_ROWS)
    assert len(caught.value.details) == 20


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f2", "i8", "u1"])
def test_booleans_in_an_array_of_numbers_are_0_and_1(dtype):
    """A frame of numbers and booleans that becomes an array has one dtype."""
    schema = Schema((Column("a", Type(Kind.BOOLEAN)), Column("b", DOUBLE)), Form.RECORD)
    flags, numbers = npy_to_inputs(npy(np.array([[1, 7], [0, 8]], dtype)), schema, MAX_ROWS).columns
    np.testing.assert_array_equal(flags, np.array([True, False]), strict=True)
    np.testing.assert_array_equal(numbers, np.array([7.0, 8.0]), strict=True)


@pytest.mark.parametrize("value", [0.5, 2, -1, np.inf, np.nan])
def test_a_boolean_that_is_another_number_is_named(value):
    schema = Schema((Column("a", DOUBLE), Column("b", Type(Kind.BOOLEAN))), Form.RECORD)
    with pytest.raises(InvalidInput) as caught:
        npy_to_inputs(npy(np.array([[value, 1.0], [1.0, value]])), schema, MAX_ROWS)
    details = [(d.row, d.column, d.got) for d in caught.value.details if d.column == "b"]
    assert details == [(1, "b", "number other than 0 and 1")]


def test_a_missing_boolean_is_nan_in_an_array_of_numbers():
    schema = one(Kind.BOOLEAN, required=False)
    got = column_of(npy_to_inputs(npy(np.array([[1.0], [np.nan], [0.0]])), schema, MAX_ROWS))
    assert got.tolist() == [True, None, False]


def test_texts_that_would_not_fit_into_memory_as_objects_are_too_large(monkeypatch):
    monkeypatch.setattr(limits, "request_bytes", 500_000_000)
    schema = Schema(tuple(Column(f"c{i}", STRING) for i in range(100)), Form.ARRAY)
    with pytest.raises(PayloadTooLarge, match="MB of memory"):
        npy_to_inputs(npy(np.full((80_000, 100), "x", "U1")), schema, 100_000)


class Payload:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    trap = tmp_path / "executed"
    objects = npy(np.array([[Payload(trap)]], dtype=object), allow_pickle=True)
    for body in (objects, pickle.dumps(Payload(trap))):
        with pytest.raises(MalformedBody):
            npy_to_inputs(body, one(DOUBLE), MAX_ROWS)
    assert not trap.exists()
    np.load(io.BytesIO(objects), allow_pickle=True)
    assert trap.exists(), "the payload is none, and the claim above says nothing"


def test_objects_in_a_field_are_refused():
    body = npy_with_header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 8)
    with pytest.raises(MalformedBody, match="objects"):
        npy_to_inputs(body, one(DOUBLE), MAX_ROWS)


def test_a_file_that_ends_too_early_or_too_late_is_malformed():
    body = npy(np.arange(40.0).reshape(20, 2))
    for length in range(0, len(body), 10):
        with pytest.raises(MalformedBody):
            npy_to_inputs(body[:length], TWO_DOUBLES, MAX_ROWS)
    for rest in (body[:-1], body + b"\0"):
        with pytest.raises(MalformedBody):
            npy_to_inputs(rest, TWO_DOUBLES, MAX_ROWS)
    assert npy_to_inputs(body, TWO_DOUBLES, MAX_ROWS).n_rows == 20


def header(shape: str, descr: str = "'<f8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "text",
    [
        header("(1, 2)") + " " * 20_000,
        header("(10**9, 2)"),
        header("(1000000000000, 2)"),
        header("(9223372036854775808, 0)"),
        header("(-1, -2)"),
        header("(-1, 2)"),
        header("(1, 2"),
        header("(1.0, 2)"),
        header("(1, 2)", "()"),
        header("(1, 2)", "[()]"),
        header("(1, 2)", "'<U0'"),
        header("(1, 2)", "('<f8', (99999999999, 9999999999))"),
        header("(" + "1," * 100 + ")"),
        "((((",
        "[" * 5_000,
        "",
        "__import__('os').abort()",
    ],
    ids=lambda text: text[:60],
)
def test_a_hostile_header_is_malformed(text):
    with pytest.raises(MalformedBody):
        npy_to_inputs(npy_with_header(text, b"\0" * 16), TWO_DOUBLES, MAX_ROWS)


def test_the_row_limit_comes_before_the_values():
    with pytest.raises(PayloadTooLarge, match="1001 rows"):
        npy_to_inputs(npy(np.full((1_001, 7), np.inf)), TWO_DOUBLES, MAX_ROWS)
    with pytest.raises(PayloadTooLarge):
        npy_to_inputs(npy_with_header(header("(1000000000000, 0)")), TWO_DOUBLES, MAX_ROWS)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::SyntaxWarning")
def test_a_damaged_npy_file_is_read_or_refused():
    chance = random.Random(2024)
    array = np.zeros(3, dtype=[("a", "<f8"), ("b", "<M8[s]"), ("c", "<U2")])
    schema = Schema((Column("a", DOUBLE), Column("b", Type(Kind.DATETIME)), Column("c", STRING)), Form.RECORD)
    original = npy(array)
    for _ in range(1_000):
        body = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(6, len(body))] = chance.randrange(256)
        with contextlib.suppress(RequestError):
            npy_to_inputs(bytes(body), schema, MAX_ROWS)


@pytest.mark.parametrize("point", [0xD800, 0x110000, 0x7FFFFFFF])
@pytest.mark.parametrize("schema", [one(STRING), tensor("str", 1)], ids=["column", "tensor"])
def test_text_that_is_not_unicode_is_refused(point, schema):
    body = npy_with_header(header("(1, 1)", "'<U1'"), point.to_bytes(4, "little"))
    with pytest.raises(RequestError, match="not Unicode"):
        npy_to_inputs(body, schema, MAX_ROWS)


@pytest.mark.parametrize(
    ("array", "dtype", "shape"),
    [
        (np.arange(6, dtype=">i2").reshape(2, 3), "float64", (3,)),
        (np.asarray(np.arange(24.0).reshape(2, 3, 4), order="F"), "float64", (-1, 4)),
        (np.array([[np.nan, 0.1]]), "float32", (2,)),
        (np.array([[5.0, -128.0]]), "int8", (2,)),
        (np.array([[255]]), "uint8", (-1,)),
        (np.array([[True]]), "bool", (1,)),
        (np.array([[2**63]], np.uint64), "float64", (1,)),
        (np.zeros((2, 0)), "float64", (-1,)),
        (np.array([1, 2]), "int64", ()),
    ],
)
def test_a_tensor_is_cast_to_the_dtype_of_the_signature(array, dtype, shape):
    got = column_of(npy_to_inputs(npy(array), tensor(dtype, *shape), MAX_ROWS))
    np.testing.assert_array_equal(got, array.astype(dtype), strict=True)


@pytest.mark.parametrize(
    ("array", "dtype", "shape"),
    [
        (np.zeros((2, 3)), "float64", (2,)),
        (np.zeros((2, 3)), "float64", (3, 1)),
        (np.zeros(2), "float64", (1,)),
        (np.array([[0], [2**53 + 1]]), "float64", (1,)),
        (np.array([[0], [2**63 - 1]]), "float64", (1,)),
        (np.array([[0], [2**64 - 1]], np.uint64), "float64", (1,)),
        (np.array([[0], [2**24 + 1]]), "float32", (1,)),
        (np.array([[0], [2049]]), "float16", (1,)),
        (np.array([[0], [70_000]]), "float16", (1,)),
        (np.array([[0], [3.5e38]]), "float32", (1,)),
        (np.array([[0], [np.inf]]), "float64", (1,)),
        (np.array([[0], [5.5]]), "int64", (1,)),
        (np.array([[0], [np.nan]]), "int64", (1,)),
        (np.array([[0], [2.0**63]]), "int64", (1,)),
        (np.array([[0], [-np.inf]], np.float16), "int64", (1,)),
        (np.array([[0], [128]]), "int8", (1,)),
        (np.array([[0], [-1]]), "uint64", (1,)),
        (np.array([[True]]), "float64", (1,)),
        (np.array([[1]]), "bool", (1,)),
        (np.array([["1"]]), "float64", (1,)),
        (np.array([[1]]), "str", (1,)),
    ],
)
def test_a_tensor_that_does_not_fit_is_invalid(array, dtype, shape):
    with pytest.raises(InvalidInput) as caught:
        npy_to_inputs(npy(array), tensor(dtype, *shape), MAX_ROWS)
    assert [detail.row for detail in caught.value.details] in ([1], [None])


# ---------------------------------------------------------------- Arrow

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize("arrow_type", INTEGERS, ids=str)
@pytest.mark.parametrize("kind", [Kind.INTEGER, Kind.LONG, Kind.FLOAT, Kind.DOUBLE])
def test_integers_of_any_width_are_numbers(arrow_type, kind):
    got = column_of(arrow_to_inputs(arrow({"a": pa.array([0, 127], arrow_type)}), one(kind), MAX_ROWS))
    dtype = {Kind.INTEGER: "int32", Kind.LONG: "int64", Kind.FLOAT: "float32", Kind.DOUBLE: "float64"}[kind]
    np.testing.assert_array_equal(got, np.array([0, 127], dtype), strict=True)


EPOCH = "2024-02-29T12:30:15"


@pytest.mark.parametrize(
    ("values", "kind", "want"),
    [
        (pa.array([1.5, None], pa.float16()), Kind.DOUBLE, np.array([1.5, np.nan])),
        (pa.array([0.5, None], pa.float32()), Kind.DOUBLE, np.array([0.5, np.nan])),
        (pa.array([0.1, None], pa.float64()), Kind.FLOAT, np.array([0.1, np.nan], np.float32)),
        (pa.array([5.0], pa.float64()), Kind.LONG, np.array([5])),
        (pa.array([1, None], pa.int64()), Kind.DOUBLE, np.array([1.0, np.nan])),
        (pa.array([True, False]), Kind.BOOLEAN, np.array([True, False])),
        (pa.array(["a", None, "é"]), Kind.STRING, np.array(["a", np.nan, "é"], object)),
        (pa.array(["a"], pa.large_string()), Kind.STRING, np.array(["a"], object)),
        (pa.array(["a", None], pa.string_view()), Kind.STRING, np.array(["a", np.nan], object)),
        (
            pa.array(["b", "a", None, "b"]).dictionary_encode(),
            Kind.STRING,
            np.array(["b", "a", np.nan, "b"], object),
        ),
        (pa.nulls(2), Kind.DOUBLE, np.array([np.nan, np.nan])),
        (pa.array([b"\x00\xff"]), Kind.BINARY, np.array([b"\x00\xff"], object)),
        (pa.array([b"\x00\xff"], pa.large_binary()), Kind.BINARY, np.array([b"\x00\xff"], object)),
        (pa.array([b"\x00\xff"], pa.binary(2)), Kind.BINARY, np.array([b"\x00\xff"], object)),
        (pa.array([0, None], pa.date32()), Kind.DATETIME, np.array(["1970-01-01", "NaT"], "M8[ns]")),
        (pa.array([86_400_000], pa.date64()), Kind.DATETIME, np.array(["1970-01-02"], "M8[ns]")),
        (pa.array([1, 2]), Kind.ANY, np.array([1, 2], object)),
        (pa.array(["x", None]), Kind.ANY, np.array(["x", None], object)),
        *[
            (
                pa.array(np.array([EPOCH, "NaT"], f"M8[{unit}]")).cast(pa.timestamp(unit, zone)),
                Kind.DATETIME,
                np.array([EPOCH, "NaT"], "M8[ns]"),
            )
            for unit in ("s", "ms", "us", "ns")
            for zone in (None, "UTC", "America/New_York")
        ],
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_columns_become_the_arrays_of_their_kinds(values, kind, want):
    assert_same_cells(column_of(arrow_to_inputs(arrow({"a": values}), one(kind), MAX_ROWS)), want)


@pytest.mark.parametrize(
    ("values", "type_", "want"),
    [
        (pa.array([[1, 2], [3, 4]]), Type(Kind.ARRAY, items=LONG), [[1, 2], [3, 4]]),
        (pa.array([[1.0]], pa.large_list(pa.float64())), Type(Kind.ARRAY, items=LONG), [[1]]),
        (pa.array([["a", "b"]], pa.list_(pa.string(), 2)), Type(Kind.ARRAY, items=STRING), [["a", "b"]]),
        (
            pa.array([{"x": 1, "y": None}]),
            Type(Kind.OBJECT, properties=(Column("x", DOUBLE), Column("y", STRING))),
            [{"x": 1.0, "y": None}],
        ),
        (
            pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
            Type(Kind.MAP, items=LONG),
            [{"k": 1}, {}],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_nested_columns_become_lists_and_dicts(values, type_, want):
    if pa.types.is_struct(values.type):  # a null type inside is refused
        values = values.cast(pa.struct([("x", pa.int64()), ("y", pa.string())]))
    assert column_of(arrow_to_inputs(arrow({"a": values}), one(type_), MAX_ROWS)).tolist() == want


def test_lists_become_a_named_tensor():
    schema = one(Type(Kind.TENSOR, dtype="float32", shape=(2,)))
    got = column_of(arrow_to_inputs(arrow({"a": pa.array([[1, 2], [3, 4]])}), schema, MAX_ROWS))
    np.testing.assert_array_equal(got, np.array([[1, 2], [3, 4]], np.float32), strict=True)


def test_the_columns_of_a_stream_become_one_unnamed_tensor():
    got = column_of(arrow_to_inputs(arrow({"x": [1, 2], "y": [3, 4]}), tensor("float64", 2), MAX_ROWS))
    np.testing.assert_array_equal(got, np.array([[1.0, 3.0], [2.0, 4.0]]), strict=True)


@pytest.mark.parametrize(
    ("values", "kind", "row"),
    [
        (pa.array([0, 2**53 + 1]), Kind.DOUBLE, 1),
        (pa.array([0, 2**53 + 1, None]), Kind.DOUBLE, 1),
        (pa.array([0, 2**63], pa.uint64()), Kind.LONG, 1),
        (pa.array([0, 2**31]), Kind.INTEGER, 1),
        (pa.array([0, 5.5]), Kind.LONG, 1),
        (pa.array([0, 3.5e38]), Kind.FLOAT, 1),
        (pa.array([0, float("inf")]), Kind.DOUBLE, 1),
        (pa.array([1, None]), Kind.LONG, 1),
        (pa.array([1.0, None]), Kind.LONG, 1),
        (pa.array([True, None]), Kind.BOOLEAN, 1),
        (pa.array([b"x", None]), Kind.BINARY, 1),
        (pa.array([True]), Kind.LONG, None),
        (pa.array([1]), Kind.BOOLEAN, None),
        (pa.array(["1"]), Kind.DOUBLE, None),
        (pa.array([1]), Kind.STRING, None),
        (pa.array([1]), Kind.DATETIME, None),
        (pa.array([0, -200_000], pa.date32()), Kind.DATETIME, 1),
        (pa.array([2**55], pa.timestamp("us")), Kind.DATETIME, 0),
        (pa.array([1], pa.duration("ns")), Kind.LONG, None),
        (pa.array([1], pa.time64("us")), Kind.LONG, None),
        (pa.array([1], pa.decimal128(5)), Kind.LONG, None),
        (pa.array([[1]]), Kind.LONG, None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_a_value_that_a_column_cannot_hold_is_named(values, kind, row):
    with pytest.raises(InvalidInput) as caught:
        arrow_to_inputs(arrow({"a": values}), one(kind), MAX_ROWS)
    assert (caught.value.details[0].row, caught.value.details[0].column) == (row, "a")


MIXED = Schema(
    (
        Column("a", DOUBLE),
        Column("b", Type(Kind.ARRAY, items=STRING)),
        Column("c", Type(Kind.DATETIME)),
        Column("d", STRING),
        Column("e", LONG, required=False),
    ),
    Form.RECORD,
)


def mixed_batch(start: int = 0) -> pa.RecordBatch:
    n = range(start, start + 3)
    return pa.record_batch(
        {
            "d": pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["x", "y"])),
            "c": pa.array([i * 10**9 for i in n], pa.timestamp("ns", "UTC")),
            "b": pa.array([[str(i)] * (i % 3) for i in n], pa.list_(pa.string())),
            "a": pa.array([i / 2 for i in n]),
        }
    )


def test_batches_are_joined_and_columns_found_by_name():
    inputs = arrow_to_inputs(arrow([mixed_batch(), mixed_batch(3)]), MIXED, MAX_ROWS)
    a, b, c, d, e = inputs.columns
    assert inputs.n_rows == 6
    assert a.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert b.tolist() == [[], ["1"], ["2", "2"], [], ["4"], ["5", "5"]]
    assert c.astype("int64").tolist() == [i * 10**9 for i in range(6)]
    assert d[[0, 1, 3, 4]].tolist() == ["x", "y", "x", "y"]
    assert np.isnan(d[2])
    assert np.isnan(e).all()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_refused_before_they_are_unpacked(codec):
    with pytest.raises(MalformedBody, match="without compression"):
        arrow_to_inputs(arrow([mixed_batch()] * 50, compression=codec), MIXED, MAX_ROWS)
    words = pa.array(["a" * 10_000, "b"] * 5).dictionary_encode()
    packed = arrow({"a": words, "b": [1.0] * 10}, compression=codec)
    with pytest.raises(MalformedBody, match="without compression"):
        arrow_to_inputs(packed, TWO_DOUBLES, MAX_ROWS)


def test_unknown_and_missing_columns_are_named():
    with pytest.raises(InvalidInput) as caught:
        arrow_to_inputs(arrow({"b": [1.0], "n" * 5_000: [1]}), TWO_DOUBLES, MAX_ROWS)
    details = [(d.column, d.got) for d in caught.value.details]
    assert details == [("n" * 77 + "…", "a column"), ("a", "nothing")]


def test_a_column_that_comes_twice_is_malformed():
    batch = pa.record_batch([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    with pytest.raises(MalformedBody, match="twice"):
        arrow_to_inputs(arrow([batch]), one(DOUBLE), MAX_ROWS)


def test_the_number_of_rows_is_limited():
    with pytest.raises(InvalidInput, match="at least one row"):
        arrow_to_inputs(arrow({"a": pa.array([], pa.float64())}), one(DOUBLE), MAX_ROWS)
    with pytest.raises(PayloadTooLarge, match="1001 rows"):
        arrow_to_inputs(arrow({"a": np.zeros(1_001)}), one(DOUBLE), MAX_ROWS)


def test_a_truncated_stream_is_malformed_or_ends_with_a_whole_batch():
    """The format lets a stream end after any batch; HTTP tells whether the body is complete."""
    body = arrow([mixed_batch(), mixed_batch(3)])
    whole = arrow_to_inputs(body, MIXED, MAX_ROWS).columns[0].tolist()
    outcomes = set()
    for length in [*range(0, len(body), 50), len(body) - 8]:
        try:
            inputs = arrow_to_inputs(body[:length], MIXED, MAX_ROWS)
        except MalformedBody:
            outcomes.add("malformed")
        except InvalidInput as error:  # between the schema and the first batch
            outcomes.add(str(error))
        else:
            outcomes.add(inputs.n_rows)
            assert inputs.columns[0].tolist() == whole[: inputs.n_rows]
    assert {"malformed", 6} <= outcomes <= {"malformed", "there must be at least one row", 3, 6}


def test_a_damaged_stream_is_read_or_refused():
    chance = random.Random(2024)
    original = arrow([mixed_batch(), mixed_batch(3)])
    refused = 0
    for _ in range(2_000):
        body = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            arrow_to_inputs(bytes(body), MIXED, MAX_ROWS)
        except RequestError:
            refused += 1
    assert refused > 100


def views_over_each_other() -> pa.Array:
    text = pa.py_buffer(b"x" * 1_000_000)
    view = np.array([[1_000_000, int.from_bytes(b"xxxx", "little"), 0, 0]] * 1_000, np.int32)
    return pa.Array.from_buffers(pa.string_view(), 1_000, [None, pa.py_buffer(view.tobytes()), text])


@pytest.mark.parametrize(
    "values",
    [
        pa.ListArray.from_arrays(pa.array([0, 2**31 - 1], pa.int32()), pa.nulls(2**31 - 1)),
        pa.FixedSizeListArray.from_arrays(pa.nulls(2**20), 2**20),
        pa.array([[{}]], pa.list_(pa.struct([]))),
        pa.array([[[]]], pa.list_(pa.list_(pa.int8(), 0))),
        pa.array([[b""]], pa.list_(pa.binary(0))),
        pa.array([[1]], pa.list_view(pa.int8())),
        pa.array([["a"]], pa.list_(pa.string_view())),
        pa.RunEndEncodedArray.from_arrays(pa.array([1_000], pa.int32()), pa.array([1.0])),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
        views_over_each_other(),
    ],
    ids=lambda values: str(values.type),
)
def test_a_type_by_which_few_bytes_stand_for_many_values_is_refused(values):
    body = arrow({"a": values})
    for schema in (one(Type(Kind.ARRAY, items=Type(Kind.ANY))), one(STRING), one(Kind.ANY)):
        with pytest.raises(RequestError):
            arrow_to_inputs(body, schema, MAX_ROWS)


def test_a_long_dictionary_word_is_not_copied_for_every_row():
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int16()), pa.array(["x" * 1_000_000]))
    got = column_of(arrow_to_inputs(arrow({"a": word}), one(STRING), MAX_ROWS))
    assert len({id(text) for text in got}) == 1


MARKER = "4242424242"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.TENSOR, Kind.ANY)])
def test_no_error_tells_a_value_that_was_sent(kind):
    nested = Type(kind, items=Type(Kind.BOOLEAN), properties=(Column("x", Type(Kind.BOOLEAN)),))
    number = int(MARKER)
    for values in (
        pa.array([MARKER]),
        pa.array([number]),
        pa.array([number + 0.5]),
        pa.array([number]).cast(pa.decimal128(20)),
        pa.array([[MARKER]]),
        pa.array([{"x": MARKER}]),
        pa.array([[("key", number)]], pa.map_(pa.string(), pa.int64())),
        pa.array([number * 10**9], pa.timestamp("us")),
    ):
        try:
            arrow_to_inputs(arrow({"a": values}), one(nested), MAX_ROWS)
        except RequestError as error:
            assert MARKER not in f"{error} {error.details}"  # some of them fit
    with pytest.raises(RequestError) as caught:
        npy_to_inputs(npy(np.array([[float(MARKER) + 0.25]], np.complex128)), one(nested), MAX_ROWS)
    assert MARKER not in f"{caught.value} {caught.value.details}"


# ---------------------------------------------------------------- results


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0.1, 0.9], [0.5, 0.5]]),
        np.array([1, 2]),
        np.array([True]),
        np.asfortranarray([[1, 2], [3, 4]], np.float32),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_a_result_is_read_back_equal_from_npy_and_from_arrow(array):
    np.testing.assert_array_equal(
        np.load(io.BytesIO(array_to_npy(array)), allow_pickle=False), array, strict=True
    )
    names = [f"c{i}" for i in range(array.shape[1])] if array.ndim == 2 else ["value"]
    table = pa.ipc.open_stream(array_to_arrow(array, names)).read_all()
    assert table.column_names == names
    for got, want in zip(table.columns, array.T if array.ndim == 2 else [array], strict=True):
        np.testing.assert_array_equal(got.to_numpy(), want, strict=True)


def test_labels_are_read_back_without_a_pickle():
    labels = np.array(["yes", "nö"], dtype=object)
    assert np.load(io.BytesIO(array_to_npy(labels)), allow_pickle=False).tolist() == ["yes", "nö"]
    assert pa.ipc.open_stream(array_to_arrow(labels, ["label"])).read_all()["label"].to_pylist() == [
        "yes",
        "nö",
    ]
