"""Values of Python and NumPy as JSON has them, by hand."""

import datetime as dt
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from serving.client.cells import NoJson, to_cells, to_plain
from tests.support.environment import ROOT

PLAIN: list[tuple[Any, Any]] = [
    (Decimal("0.1"), 0.1),
    (Decimal("1E+300"), 1e300),
    (Decimal(2**53 + 1), 2**53 + 1),
    (Decimal("NaN"), None),
    (Decimal("sNaN"), None),
    (np.longdouble(1.5), 1.5),
    (np.float16("nan"), None),
    (np.bool_(True), True),
    (np.datetime64("2024-05"), "2024-05-01"),
    (np.datetime64("NaT"), None),
    (dt.date(2024, 5, 1), "2024-05-01"),
    (memoryview(b"\x00\xff"), "AP8="),
    ({1: np.array([[1, np.nan]])}, {"1": [[1.0, None]]}),
]


@pytest.mark.parametrize(("value", "expected"), PLAIN, ids=lambda value: type(value).__name__)
def test_a_value(value: Any, expected: Any) -> None:
    got = to_plain(value)
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    "value",
    [np.timedelta64(1, "s"), 1j, {1, 2}, object(), np.void(b"a")],
    ids=lambda value: type(value).__name__,
)
def test_what_json_does_not_have(value: Any) -> None:
    with pytest.raises(NoJson, match=type(value).__name__):
        to_plain([value])


def test_arrays_of_years_and_of_long_doubles() -> None:
    assert to_cells(np.array(["2024", "NaT"], "M8[Y]")) == ["2024-01-01", None]
    assert to_cells(np.array([1.5, np.nan], np.longdouble)) == [1.5, None]
    assert to_cells(np.ma.array([[1, 2]], mask=[[True, False]])) == [[None, 2]]


def test_arrow_keeps_nanoseconds_without_pandas() -> None:
    """Python's own datetimes end at microseconds."""
    program = """if True:
        import importlib.abc, sys

        class Absent(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "pandas":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Absent())
        import pyarrow as pa
        from serving.client.cells import to_cells
        print(to_cells(pa.chunked_array([pa.array([1, None], pa.timestamp("ns", tz="Europe/Berlin"))])))
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "['1970-01-01T00:00:00.000000001', None]\n", done.stderr
