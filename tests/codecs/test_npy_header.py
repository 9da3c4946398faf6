"""The header of a `.npy` file, against NumPy's own reader."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from serving.codecs import npy_header
from serving.codecs.npy_header import PLAIN_BYTES, read_header
from tests.support.soak import scaled

NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
) | st.sampled_from(
    ["it's", 'say "x"', "both ' and \"", "back\\slash", "new\nline", "é\u2028", "Müller", "特徴"]
)
PLAIN = (
    st_numpy.scalar_dtypes()
    | st_numpy.unicode_string_dtypes()
    | st_numpy.byte_string_dtypes()
    | st_numpy.datetime64_dtypes()
    | st.sampled_from(["M8[25s]", "m8[ns]", "V7", ">f2", "c16", "longdouble"]).map(np.dtype)
)
RECORDS = st.recursive(
    PLAIN,
    lambda inner: st.lists(
        st.tuples(NAMES, inner, st.sampled_from([(), (2,), (2, 3)])),
        min_size=1,
        max_size=5,
        unique_by=lambda field: field[0],
    ).flatmap(lambda fields: st.booleans().map(lambda align: np.dtype(fields, align=align))),
    max_leaves=6,
)


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version)
    return out.getvalue()


def names_of(dtype: np.dtype) -> list[str]:
    """The names of all fields, those inside fields included."""
    inner = [name for field in (dtype.fields or {}).values() for name in names_of(field[0].base)]
    return [*(dtype.names or ()), *inner]


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@settings(max_examples=scaled(300, 20_000), deadline=None)
@given(
    RECORDS,
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from("CF"),
    st.sampled_from([None, (2, 0), (3, 0)]),
)
def test_what_numpy_saves_is_read_as_numpy_reads_it(dtype, shape, order, version):
    array = np.zeros(shape, dtype=dtype, order=order)
    try:
        body = saved(array, version)
    except UnicodeEncodeError:  # a name that version 2 cannot write
        body = saved(array)
    header = read_header(body, names_of(dtype))
    loaded = np.lib.format.read_array(io.BytesIO(body))
    assert (header.shape, header.dtype) == (loaded.shape, loaded.dtype)
    assert header.dtype.fields == loaded.dtype.fields
    assert header.fortran_order == np.lib.format.header_data_from_array_1_0(array)["fortran_order"]
    assert header.offset == len(body) - array.nbytes


def body_of(text: str, version: int = 1) -> bytes:
    data = text.encode("utf-8" if version == 3 else "latin-1") + b"\n"
    size = 2 if version == 1 else 4
    return b"\x93NUMPY" + bytes([version, 0]) + len(data).to_bytes(size, "little") + data


GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        '{"shape": (3,2), "fortran_order":False,"descr":"<f8"}',
        GOOD.replace("(3, 2)", "(3L, 2L)"),  # as Python 2 wrote it
        GOOD.replace("(3, 2)", "(3, 2,)"),
        GOOD.replace("'<f8'", "('<f8')"),
    ],
)
def test_other_spellings_of_a_header_are_read(text):
    header = read_header(body_of(text), [])
    assert header[:3] == ((3, 2), False, np.dtype("<f8"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        GOOD[:-1],
        GOOD + "1",
        GOOD.replace(",", "", 1),
        GOOD.replace(",", ",,", 1),
        GOOD.replace(":", "", 1),
        GOOD.replace("'shape'", "'descr'"),
        GOOD.replace("'shape'", "shape"),
        GOOD.replace(", }", ", 'x': 1}"),
        GOOD.replace("False", "0"),
        GOOD.replace("False", "None"),
        GOOD.replace("(3, 2)", "(3)"),
        GOOD.replace("(3, 2)", "[3, 2]"),
        GOOD.replace("(3, 2)", "(-3, 2)"),
        GOOD.replace("(3, 2)", "(3.0, 2)"),
        GOOD.replace("(3, 2)", "(True, 2)"),
        GOOD.replace("(3, 2)", "(1+2, 2)"),
        GOOD.replace("(3, 2)", "(" + "9" * 100 + ",)"),
        GOOD.replace("'<f8'", "'f8,f8'"),
        GOOD.replace("'<f8'", "'float64'"),
        GOOD.replace("'<f8'", "'\\q'"),
        GOOD.replace("'<f8'", "'<f8"),
        GOOD.replace("'<f8'", "None"),
        GOOD.replace("'<f8'", "8"),
        GOOD.replace("'<f8'", "[1]"),
        GOOD.replace("'<f8'", "[('a',)]"),
        GOOD.replace("'<f8'", "[('a', '<f8'), ('a', '<f8')]"),
        GOOD.replace("'<f8'", "('<f8', 2, 3)"),
        GOOD.replace("'<f8'", "[" * 17 + "]" * 17),
        "[" * 900,
        "(" * 900,
        "'" * 900,
        "-" * 900,
        "\\" * 900,
        "__import__('os').abort()",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), } if 1 else 2",
    ],
    ids=lambda text: text[:70],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_is_no_header_is_refused(text, version):
    with pytest.raises((ValueError, TypeError, LookupError)):
        read_header(body_of(text, version), ["a"])


def test_a_header_may_be_as_long_as_the_names_of_the_signature_need():
    names = [f"a column with a rather long name, number {i}" for i in range(500)]
    body = saved(np.zeros(1, dtype=[(name, "<f8") for name in names]))
    assert len(body) > 30_000
    assert list(read_header(body, names).dtype.names) == names
    with pytest.raises(ValueError, match="too long"):
        read_header(body, names[:10])
    with pytest.raises(ValueError, match="too long"):
        read_header(body_of(GOOD + " " * PLAIN_BYTES), [])


@pytest.mark.parametrize("unit", ["(", "[(", "{'a':", "'\\x", "1 ", "a ", "' ", "#\n", " "])
def test_a_broken_header_costs_no_more_than_its_tokens(unit, monkeypatch):
    """NumPy tokenises it in Python, again and again: 10 kB take 0.3 s."""
    names = ["x" * 100] * 10
    n_tokens = 0

    class Counting:
        def match(self, *args):
            nonlocal n_tokens
            n_tokens += 1
            return pattern.match(*args)

    pattern = npy_header._TOKEN
    monkeypatch.setattr(npy_header, "_TOKEN", Counting())
    text = (unit * 13_000)[:12_900]
    with pytest.raises((ValueError, TypeError, LookupError)):
        read_header(body_of(text), names)
    assert n_tokens <= len(text) / len(unit) * 4


@pytest.mark.parametrize(
    "body", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\xff", b"PK\x03\x04"]
)
def test_a_body_that_ends_in_its_header_is_refused(body):
    with pytest.raises(ValueError, match=r"cut off|not a \.npy"):
        read_header(body, [])
    with pytest.raises(ValueError, match=r"not a \.npy"):
        read_header(body_of(GOOD).replace(b"\x01\x00", b"\x04\x00", 1), [])
