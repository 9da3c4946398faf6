"""JSON bodies: the fast way and the thorough way agree, and whatever is wrong is an answer, not a crash."""

import base64
import json
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.codecs.json import JsonDecoder, check_params, parse_json, read_rows
from serving.errors import InvalidInput, MalformedBody, PayloadTooLarge, RequestError
from serving.model.schema import Column, Form, Inputs, Kind, Param, Schema, Type, parse_schema
from tests.support.soak import scaled

MAX_ROWS = 1_000


def schema_of(*columns: Column, form: Form = Form.RECORD, params: tuple[Param, ...] = ()) -> Schema:
    return Schema(columns, form, params)


def column(kind: Kind, name: str = "a", required: bool = True) -> Column:
    return Column(name, Type(kind), required)


def predict(schema: Schema, *instances, max_rows: int = MAX_ROWS) -> Inputs:
    return JsonDecoder(schema, max_rows).predict(json.dumps({"instances": instances}).encode())[0]


def assert_same(got: Inputs, want: Inputs) -> None:
    assert got.n_rows == want.n_rows
    for one, other in zip(got.columns, want.columns, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype == object:  # repr tells 1 from 1.0 and True, and nan is nan
            assert repr(one.tolist()) == repr(other.tolist())
        else:
            np.testing.assert_array_equal(one, other, strict=True)


EVERY_TYPE = [
    *[Type(k) for k in Kind if k not in (Kind.ARRAY, Kind.MAP, Kind.OBJECT, Kind.TENSOR)],
    Type(Kind.ARRAY, items=Type(Kind.LONG)),
    Type(Kind.MAP, items=Type(Kind.DATETIME)),
    Type(Kind.OBJECT, properties=(column(Kind.DOUBLE, "x"), column(Kind.LONG, "y", required=False))),
    Type(Kind.TENSOR, dtype="float64", shape=(2,)),
    Type(Kind.TENSOR, dtype="float32", shape=(-1, 2)),
    Type(Kind.TENSOR, dtype="float16", shape=(-1,)),
    Type(Kind.TENSOR, dtype="uint8", shape=(2,)),
    Type(Kind.TENSOR, dtype="int64", shape=()),
    Type(Kind.TENSOR, dtype="bool", shape=(-1,)),
    Type(Kind.TENSOR, dtype="str", shape=(-1,)),
]

BORDERS = [
    sign * (2**bits + d) for sign in (1, -1) for bits in (8, 11, 24, 31, 53, 63, 64) for d in (-1, 0, 1)
]
NUMBERS = (
    st.sampled_from([*BORDERS, *map(float, BORDERS), -0.0, 5.0, 5.5, 1e300, 3.5e38, 1e-320, 10**400])
    | st.integers(-9, 9)
    | st.floats(allow_nan=True)
)
TEXTS = st.sampled_from(
    ["", "5", "é", "YQ==", "2024-02-29T12:30:00.1234567Z", "2024-01-01", "\ud800"]
) | st.text(max_size=3)
ANYTHING = st.recursive(
    NUMBERS | TEXTS | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)


def values_of(type_: Type) -> st.SearchStrategy:
    """Mostly valid JSON values of a type."""
    match type_.kind:
        case Kind.BOOLEAN:
            return st.booleans()
        case Kind.INTEGER | Kind.LONG | Kind.FLOAT | Kind.DOUBLE:
            return st.integers(-(2**31), 2**31 - 1) | st.sampled_from([5.0, -0.0, 2.0**30]) | NUMBERS
        case Kind.STRING:
            return TEXTS
        case Kind.BINARY:
            return st.binary(max_size=4).map(lambda data: base64.b64encode(data).decode())
        case Kind.DATETIME:
            return st.datetimes().map(lambda moment: moment.isoformat())
        case Kind.ARRAY:
            return st.lists(values_of(type_.items), max_size=3)
        case Kind.MAP:
            return st.dictionaries(TEXTS, values_of(type_.items), max_size=2)
        case Kind.OBJECT:
            required = {p.name: values_of(p.type) for p in type_.properties if p.required}
            optional = {p.name: values_of(p.type) for p in type_.properties if not p.required}
            return st.fixed_dictionaries(required, optional=optional)
        case Kind.TENSOR:
            kind = "U" if type_.dtype == "str" else np.dtype(type_.dtype).kind
            value = {"U": TEXTS, "b": st.booleans(), "f": NUMBERS}.get(kind, st.integers(0, 255))
            for length in reversed(type_.shape):
                size = {"min_size": length, "max_size": length} if length != -1 else {"max_size": 2}
                value = st.lists(value, **size)
            return value
        case _:
            return ANYTHING


@st.composite
def schemas_and_rows(draw):
    """A schema, and rows that often fit it."""
    names = draw(
        st.lists(
            st.sampled_from(["a", "b b", "é", '"q"', "", "back\\slash"]), min_size=1, max_size=3, unique=True
        )
    )
    form = (
        draw(st.sampled_from(Form)) if len(names) == 1 else draw(st.sampled_from([Form.RECORD, Form.ARRAY]))
    )
    types = [draw(st.sampled_from(EVERY_TYPE)) for _ in names]
    # MLflow has no optional tensors.
    columns = [
        Column(name, type_, type_.kind is Kind.TENSOR or draw(st.booleans()))
        for name, type_ in zip(names, types, strict=True)
    ]
    # Wrong cells are rare, or else no document of several cells would be a valid one.
    is_wild = draw(st.integers(0, 3)) == 0
    cells = [values_of(c.type) | (st.none() if c.may_be_missing else st.nothing()) for c in columns]
    if is_wild:
        cells = [one | ANYTHING for one in cells]
    rows = draw(st.lists(st.tuples(*cells), min_size=0 if is_wild else 1, max_size=4))
    leave_out = draw(st.sampled_from([None, None, *[c.name for c in columns if is_wild or not c.required]]))
    return Schema(tuple(columns), form), [list(row) for row in rows], leave_out


@settings(max_examples=scaled(500, 50_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas_and_rows())
@example((schema_of(column(Kind.DOUBLE)), [[2**53 + 1]], None))
@example((schema_of(column(Kind.LONG, required=False)), [[2**53 + 1], [None]], None))
def test_what_the_fast_way_accepts_the_thorough_way_reads_the_same(drawn):
    schema, rows, leave_out = drawn
    instances = {
        Form.BARE: [row[0] for row in rows],
        Form.ARRAY: rows,
        Form.RECORD: [
            {n: v for n, v in zip(schema.names, row, strict=True) if n != leave_out} for row in rows
        ],
    }[schema.form]
    batch_form = Form.BARE if schema.form is Form.BARE else Form.ARRAY
    batch_rows = instances if schema.form is Form.BARE else rows
    decoder = JsonDecoder(schema, MAX_ROWS)
    body, batch_body = json.dumps({"instances": instances}).encode(), json.dumps(batch_rows).encode()
    for decode, sent, form in (
        (lambda: decoder.predict(body)[0], body, schema.form),
        (lambda: decoder.batch(batch_body), batch_body, batch_form),
    ):
        document = parse_json(sent)
        plain = document["instances"] if sent is body else document
        try:
            want = read_rows(plain, schema, form, MAX_ROWS)
        except RequestError as error:
            with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
                decode()
        else:
            assert_same(decode(), want)


ROUND = [
    ({"a": 1, "b": "x"}, (column(Kind.LONG), column(Kind.STRING, "b"))),
    ({"a": 1.5}, (column(Kind.DOUBLE), column(Kind.LONG, "b", required=False))),
    ({"a": "2024-01-01"}, (column(Kind.DATETIME),)),
    ({"a": [1, 2]}, (Column("a", EVERY_TYPE[9]),)),
    ({"a": True}, (column(Kind.BOOLEAN),)),
]


@pytest.mark.parametrize(("row", "columns"), ROUND)
def test_the_fast_way_takes_what_well_behaved_clients_send(row, columns, monkeypatch):
    """Otherwise a claim that compares the two ways would hold for a fast way that takes nothing."""
    decoder = JsonDecoder(schema_of(*columns), MAX_ROWS)

    def refuse(*_):
        raise AssertionError("the thorough way was asked")

    monkeypatch.setattr("serving.codecs.json.parse_json", refuse)
    assert decoder.predict(json.dumps({"instances": [row] * 3}).encode())[0].n_rows == 3


FUZZ_SCHEMA = schema_of(
    *[
        Column(f"c{i}", type_, required=False)
        for i, type_ in enumerate(EVERY_TYPE)
        if type_.kind is not Kind.TENSOR
    ],
    params=(Param("p", Type(Kind.LONG)),),
)


def only_request_errors(body: bytes) -> None:
    for schema in (FUZZ_SCHEMA, schema_of(column(Kind.ANY)), schema_of(column(Kind.DOUBLE), form=Form.BARE)):
        decoder = JsonDecoder(schema, MAX_ROWS)
        for decode in (decoder.predict, decoder.batch):
            try:
                decode(body)
            except RequestError as error:
                json.dumps([str(error), *[d.column for d in error.details]], ensure_ascii=False).encode()


@settings(max_examples=scaled(300, 50_000), deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    only_request_errors(body)


GOOD = (
    b'{"instances": [{"c0": true, "c1": 1, "c5": "\\u00e9\xc3\xa9", "c8": {"a": [1e5]}}], "params": {"p": 1}}'
)


@settings(max_examples=scaled(500, 50_000), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.integers(0, 99)
)
def test_a_mutated_or_truncated_body_is_read_or_refused(changes, cut):
    body = bytearray(GOOD)
    for position, byte in changes:
        body[position] = byte
    only_request_errors(bytes(body[: len(body) - cut]))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"instances":' + b"[" * 100_000,
        b'{"instances": [{"a":' * 100_000,
        b'{"instances": [{"a": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"instances": [{"a": ' + b"9" * 100_000 + b"}]}",
        b"[" + b"9" * 100_000 + b".5e99999999]",
        b'{"instances": [{"a": 1e999}, {"a": -1e999}]}',
        b'{"instances": [{"a": "\\ud800", "\\udfff": 1}]}',
        b'{"\\ud800": 1, "instances": [], "params": {"\\ud800": 1}}',
        b'{"instances": [{"a": 1}], "params": {"\\ud800": 1}}',
        b'{"instances": [{"a": "\xed\xa0\x80"}]}',
        b"\xff\xfe\x00",
        b"\xff",
        b"\x00",
        b"\xef\xbb\xbf[1]",
        '{"instances": [{"a": 1}]}'.encode("utf-16"),
        b"NaN",
        b"{}" * 2,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_hostile_body_is_read_or_refused(body):
    only_request_errors(body)


def test_the_last_of_two_equal_keys_counts_on_either_way():
    decoder = JsonDecoder(schema_of(column(Kind.DOUBLE)), MAX_ROWS)
    fast = decoder.predict(b'{"instances": [{"a": 1, "a": 2}]}')[0]
    thorough = decoder.predict(b'{"instances": [{"a": "text", "a": 2}]}')[0]
    assert fast.columns[0].tolist() == thorough.columns[0].tolist() == [2.0]


def test_a_float_beyond_2_to_the_53_is_a_double():
    assert predict(schema_of(column(Kind.DOUBLE)), {"a": 1e300}).columns[0].tolist() == [1e300]


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**60 + 1])
def test_an_integer_that_no_double_holds_is_refused(value):
    with pytest.raises(InvalidInput):
        predict(schema_of(column(Kind.DOUBLE)), {"a": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [('say "x"', 1.5), ("back\\slash", 2.5), ("new\nline", 3.5), ("", 4.5), ("\u2028é", 5.5)],
)
def test_a_column_may_have_any_name(name, value):
    assert predict(schema_of(column(Kind.DOUBLE, name)), {name: value}).columns[0].tolist() == [value]
    batch = JsonDecoder(schema_of(column(Kind.DOUBLE, name)), MAX_ROWS).batch(json.dumps([[value]]).encode())
    assert batch.columns[0].tolist() == [value]


def test_columns_come_in_the_order_of_the_signature():
    schema = schema_of(
        column(Kind.LONG, "b"), column(Kind.STRING, "a"), column(Kind.DOUBLE, "c", required=False)
    )
    rows = predict(schema, {"a": "x", "b": 1}, {"c": 2.5, "b": 2, "a": "y"})
    b, a, c = rows.columns
    assert (b.tolist(), a.tolist()) == ([1, 2], ["x", "y"])
    assert math.isnan(c[0])
    assert c[1] == 2.5


@pytest.mark.parametrize("kind", [Kind.DOUBLE, Kind.LONG, Kind.STRING, Kind.ANY])
@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_the_tokens_nan_and_infinity_are_422_with_row_and_column(kind, token):
    decoder = JsonDecoder(schema_of(column(kind)), MAX_ROWS)
    with pytest.raises(InvalidInput) as caught:
        decoder.predict(f'{{"instances": [{{"a": {token}}}]}}'.encode())
    (detail,) = caught.value.details
    assert (detail.row, detail.column, detail.got) == (0, "a", token)


@pytest.mark.parametrize("wrong", ["text", None, 5.5, True, 2**63, [1], {}])
def test_one_wrong_cell_among_a_thousand_rows_is_named_alone(wrong):
    rows = [{"a": i, "b": 0.5} for i in range(1_000)]
    rows[617]["a"] = wrong
    with pytest.raises(InvalidInput) as caught:
        predict(schema_of(column(Kind.LONG), column(Kind.DOUBLE, "b")), *rows)
    (detail,) = caught.value.details
    assert (detail.row, detail.column) == (617, "a")
    assert "row 617 column 'a'" in str(caught.value)


@pytest.mark.parametrize(
    "instances",
    [
        [{"a": "x", "b": "x"}] * 500,
        [{f"unknown{i}": 1 for i in range(500)}],
        [{}] * 500,
        [1] * 500,
        [{"a": 1, "b": "x"}] * 500,
    ],
)
def test_at_most_20_problems_are_told(instances):
    with pytest.raises(InvalidInput) as caught:
        predict(schema_of(column(Kind.LONG), column(Kind.DOUBLE, "b")), *instances)
    assert len(caught.value.details) == 20
    with pytest.raises(InvalidInput) as caught:
        JsonDecoder(schema_of(column(Kind.LONG)), MAX_ROWS).predict(
            json.dumps({f"unknown{i}": 1 for i in range(500)} | {"instances": []}).encode()
        )
    assert len(caught.value.details) == 20


MARKER = "4242424242"


@pytest.mark.parametrize("type_", EVERY_TYPE, ids=str)
@pytest.mark.parametrize(
    "value", [f'"{MARKER}"', f"-{MARKER}.5", MARKER * 3, f'["{MARKER}"]', f'{{"k": "{MARKER}"}}']
)
def test_no_error_tells_a_value_that_was_sent(type_, value):
    schema = schema_of(Column("a", type_), column(Kind.BOOLEAN, "b"), params=(Param("p", type_),))
    decoder = JsonDecoder(schema, MAX_ROWS)
    for decode, body in (
        (decoder.predict, f'{{"instances": [{{"a": {value}, "b": {value}}}, {value}]}}'),
        (decoder.predict, f'{{"instances": [{{"c": {value}}}], "params": {value}}}'),
        (
            decoder.predict,
            f'{{"instances": [{{"a": {value}, "b": true}}], "params": {{"p": {value}, "q": {value}}}}}',
        ),
        (decoder.predict, f'{{"instances": {value}}}'),
        (decoder.predict, f'{{"instances": [], "key": {value}}}'),
        (decoder.predict, value),
        (decoder.predict, f'{{"instances": [{{"a": {value} "\\x"}}]}}'),
        (decoder.batch, f"[[{value}, {value}], {value}]"),
        (decoder.batch, f"[[{value}]]"),
        (decoder.batch, f"[{value} {value}]"),
    ):
        with pytest.raises(RequestError) as caught:
            decode(body.encode())
        assert MARKER not in f"{caught.value} {caught.value.details}"


def test_an_unknown_columns_name_is_told_and_cut_to_80_characters():
    with pytest.raises(InvalidInput) as caught:
        predict(schema_of(column(Kind.LONG)), {"a": 1, "n" * 5_000: 1, "b": 1})
    names = [detail.column for detail in caught.value.details]
    assert names == ["n" * 77 + "…", "b"]


@pytest.mark.parametrize("body", [b"", b" \n", b"{", b'{"instances": [1,]}', b"[1] 2", b"\xff\xff\xff"])
def test_what_is_not_json_is_malformed(body):
    decoder = JsonDecoder(schema_of(column(Kind.LONG)), MAX_ROWS)
    for decode in (decoder.predict, decoder.batch):
        with pytest.raises(MalformedBody):
            decode(body)


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("cell", ["{}", '{{"deep": [{}]}}'])
def test_an_integer_is_too_long_for_anything_whatever_stands_beside_it(sign, cell):
    """Read fast where all rows fit, and thoroughly where another one does not."""
    decoder = JsonDecoder(schema_of(column(Kind.ANY), column(Kind.LONG, "b")), MAX_ROWS)
    for n_digits, fits in ((400 - len(sign), True), (401 - len(sign), False), (430, False)):
        row = '{"a": ' + cell.format(sign + "9" * n_digits) + ', "b": 1}'
        for others, n_bad in (("", 0), (', {"a": 1, "b": "no"}', 1)):
            try:
                decoder.predict(f'{{"instances": [{row}{others}]}}'.encode())
                details = []
            except InvalidInput as error:
                details = error.details
            assert len(details) == n_bad + (not fits), (n_digits, others)


def test_a_mistake_has_its_place_once():
    with pytest.raises(MalformedBody, match=r"not JSON: Unterminated string starting at line 1, column 2$"):
        JsonDecoder(schema_of(column(Kind.LONG)), MAX_ROWS).predict(b'{"inst')


@pytest.mark.parametrize(
    "document", [[], 1, None, "text", {}, {"instances": 1}, {"instances": None}, {"rows": []}]
)
def test_json_of_another_shape_is_invalid(document):
    with pytest.raises(InvalidInput):
        JsonDecoder(schema_of(column(Kind.LONG)), MAX_ROWS).predict(json.dumps(document).encode())


@pytest.mark.parametrize("document", [{}, 1, None, [1], [[1, 2]], [[]], [{"a": 1}]])
def test_a_batch_of_another_shape_is_invalid(document):
    with pytest.raises(InvalidInput):
        JsonDecoder(schema_of(column(Kind.LONG)), MAX_ROWS).batch(json.dumps(document).encode())


def test_row_of_another_length_is_told_whose_values_it_has_in_which_order():
    def refusal(n_columns: int) -> str:
        names = [f"c{n}" for n in range(n_columns - 1)] + ["x" * 30]
        decoder = JsonDecoder(schema_of(*(column(Kind.DOUBLE, name) for name in names)), MAX_ROWS)
        with pytest.raises(InvalidInput) as caught:
            decoder.batch(b"[[1.0]]")
        return caught.value.details[0].expected

    assert refusal(3) == f"array of 3 values (c0, c1, {'x' * 19}…)"
    assert refusal(50) == f"array of 50 values ({', '.join(f'c{n}' for n in range(20))}, … 30 more)"


def test_no_rows_are_invalid_and_too_many_too_large():
    schema = schema_of(column(Kind.LONG))
    with pytest.raises(InvalidInput, match="at least one row"):
        predict(schema)
    with pytest.raises(InvalidInput, match="at least one row"):
        JsonDecoder(schema, 3).batch(b"[]")
    assert predict(schema, *[{"a": 1}] * 3, max_rows=3).n_rows == 3
    for value in (1, "text"):
        with pytest.raises(PayloadTooLarge, match="4 rows"):
            predict(schema, *[{"a": value}] * 4, max_rows=3)
        with pytest.raises(PayloadTooLarge, match="4 rows"):
            JsonDecoder(schema, 3).batch(json.dumps([[value]] * 4).encode())


@pytest.mark.parametrize(
    ("inputs", "body", "want"),
    [
        ([{"type": "double", "required": True}], [1, None, 2.5], [1.0, math.nan, 2.5]),
        (
            [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}],
            [[1, 2], [3, 4]],
            [[1, 2], [3, 4]],
        ),
        ([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}], [1, 2], [1, 2]),
    ],
)
def test_bare_values_are_rows(inputs, body, want):
    decoder = JsonDecoder(parse_schema(json.dumps(inputs)), MAX_ROWS)
    one = decoder.predict(json.dumps({"instances": body}).encode())[0]
    assert_same(one, decoder.batch(json.dumps(body).encode()))
    np.testing.assert_array_equal(one.columns[0], want)


def test_tensor_rows_of_different_lengths_are_refused():
    schema = schema_of(Column("0", Type(Kind.TENSOR, dtype="float64", shape=(-1,))), form=Form.BARE)
    with pytest.raises(InvalidInput) as caught:
        predict(schema, [1.0, 2.0], [3.0])
    assert caught.value.details[0].got == "rows of different shapes"


PARAMS = schema_of(
    column(Kind.LONG),
    params=(Param("threshold", Type(Kind.DOUBLE)), Param("ids", Type(Kind.LONG), is_list=True)),
)


def test_params_are_cast():
    assert check_params({"threshold": 1, "ids": [1, 2.0]}, PARAMS) == {"threshold": 1.0, "ids": [1, 2]}
    assert check_params(None, PARAMS) == {}


@pytest.mark.parametrize(
    ("params", "column_"),
    [
        ([], "params"),
        ({"unknown": 1}, "params.unknown"),
        ({"\ud800": 1}, "params.?"),
        ({"threshold": "1"}, "params.threshold"),
        ({"threshold": 2**53 + 1}, "params.threshold"),
        ({"ids": 1}, "params.ids"),
        ({"ids": [1, 5.5]}, "params.ids[1]"),
    ],
)
def test_a_wrong_param_is_named(params, column_):
    body = json.dumps({"instances": [{"a": 1}], "params": params}).encode()
    with pytest.raises(InvalidInput) as caught:
        JsonDecoder(PARAMS, MAX_ROWS).predict(body)
    assert [detail.column for detail in caught.value.details] == [column_]
