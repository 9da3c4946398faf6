"""Parses dates in a CSV file."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from scripts.training import TrainingError
from scripts.training.odd_cells import MOSTLY, are_few, are_placeholders, describe, describe_missing, line_of

ISO = "ISO8601"

_DAY = r"\d{1,2}"
_TIME = r"([ T]\d{1,2}:\d{2}(:\d{2})?)?"

FORMATS = (
    (re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?"), (ISO,)),
    (re.compile(rf"{_DAY}\.{_DAY}\.\d{{4}}{_TIME}"), ("%d.%m.%Y",)),
    (re.compile(rf"{_DAY}/{_DAY}/\d{{4}}{_TIME}"), ("%d/%m/%Y", "%m/%d/%Y")),
    (re.compile(rf"{_DAY}-{_DAY}-\d{{4}}{_TIME}"), ("%d-%m-%Y", "%m-%d-%Y")),
    (re.compile(rf"\d{{4}}/\d{{2}}/\d{{2}}{_TIME}"), ("%Y/%m/%d",)),
)
"""Patterns of dates, and the formats that each may have."""

EARLIEST, LATEST = pd.Timestamp.min, pd.Timestamp.max
"""Range of datetime64[ns]."""

N_FIRST = 1_000
"""Cells that are checked first; most columns need no more."""

READABLE = {ISO: "YYYY-MM-DD", "%d": "DD", "%m": "MM", "%Y": "YYYY", "%H": "hh", "%M": "mm", "%S": "ss"}


class Dates(NamedTuple):
    """A column of dates."""

    moments: pd.Series
    """datetime64[ns] in UTC without a zone; NaT if a cell is missing, or not a date."""
    form: str
    """For `pandas.to_datetime`, such as `%d.%m.%Y`."""
    is_odd: pd.Series
    """Marks cells that are not dates in this format: placeholders such as `n/a`, impossible days, other formats."""

    def describe(self) -> str:
        """Returns the format, such as DD.MM.YYYY, and how many cells are not dates."""
        form = self.form
        for code, readable in READABLE.items():
            form = form.replace(code, readable)
        odd = describe_missing(self.is_odd, "dates")
        return f"{form}; {odd}" if odd else form


class NoDates(Exception):
    """A column does not consist of dates; the message says why, and is empty if nothing looks like a date."""


def find_dates(cells: pd.Series) -> Dates:
    """Returns the dates in a column of text; a few odd cells count as missing.

    Args:
        cells: text; a missing cell is NaN.

    Raises:
        NoDates: too few cells are dates, or the dates are ambiguous.
    """
    there = cells.dropna()
    for pattern, formats in FORMATS:
        if not _looks(there.head(N_FIRST), pattern).mean() > MOSTLY / 2:  # most columns have no dates
            continue
        looks = _looks(there, pattern)
        if looks.mean() > MOSTLY:
            dates = _read_as(cells, there[looks], formats)
            if not are_placeholders(dates.is_odd, cells):
                raise NoDates(f"{describe(dates.is_odd, 'dates')} (override: --date)")
            return dates
    raise NoDates("")


def parse_dates(cells: pd.Series, form: str | None) -> Dates:
    """Returns the dates in a column that is known to have dates; all other cells count as missing.

    Args:
        cells: text; a missing cell is NaN.
        form: for `strptime`, such as `%d/%m/%Y`; None detects it.

    Raises:
        TrainingError: no cell is a date, or many are dates in another format.
    """
    there = cells.dropna()
    if form is None:
        pattern, formats = max(FORMATS, key=lambda one: _looks(there, one[0]).sum())
        looks = _looks(there, pattern)
        if not looks.any():
            raise TrainingError(
                f"column {cells.name!r} cannot be a date: no cell looks like one; give the format, such as "
                "--date day=%d/%m/%Y"
            )
        try:
            dates = _read_as(cells, there[looks], formats)
        except NoDates as error:
            raise TrainingError(f"column {cells.name!r} cannot be a date: {error}") from None
    else:
        dates = _to_dates(cells, _read(cells, form), form)
    is_other = dates.is_odd & _looks_like_some_date(cells)
    is_none = len(there) > 0 and bool(dates.moments.isna().all())
    if is_none or (is_other.any() and not are_few(is_other, cells[~dates.is_odd | is_other])):
        wrong = dates.is_odd if is_none else is_other
        raise TrainingError(
            f"column {cells.name!r}: {int(wrong.sum()):,} cells are not dates in the format {dates.form}, the first "
            f"in line {line_of(wrong)}: {cells[wrong].iloc[0]!r}"
        )
    return dates


def _read_as(cells: pd.Series, looking: pd.Series, formats: Sequence[str]) -> Dates:
    """Returns the dates in the format that reads all cells that look like dates, or else nearly all.

    Raises:
        NoDates: no format does, or two do with different results.
    """
    time = "" if formats == (ISO,) else _time_of(looking)
    read = [(form + time, _read(looking, form + time)) for form in formats]
    whole = [one for one in read if one[1].notna().all()]
    fitting = whole or [one for one in read if are_few(one[1].isna(), looking)]
    if not fitting:
        wrong = min((moments.isna() for _, moments in read), key=sum).reindex(cells.index, fill_value=False)
        raise NoDates(
            f"{int(wrong.sum()):,} of its dates do not exist, or have another format, the first in line "
            f"{line_of(wrong)}"
        )
    form, moments = fitting[0]
    if len(fitting) > 1 and not moments.equals(fitting[1][1]):
        raise NoDates(f"the first number may be day or month; give --date {cells.name}=%d/%m/%Y or =%m/%d/%Y")
    return _to_dates(cells, moments, form)


def _to_dates(cells: pd.Series, moments: pd.Series, form: str) -> Dates:
    moments = moments.reindex(cells.index)
    return Dates(moments, form, moments.isna() & cells.notna())


def _time_of(cells: pd.Series) -> str:
    """Returns the format of the time after the day."""
    mark = "T" if "T" in cells.iloc[0] else " "
    return ("", f"{mark}%H:%M", f"{mark}%H:%M:%S")[int(cells.str.count(":").max())]


def _read(cells: pd.Series, form: str) -> pd.Series:
    """Returns the timestamps; NaT for cells that are not dates in this format."""
    moments = pd.to_datetime(cells, format=form, utc=True, errors="coerce").dt.tz_localize(None)
    in_range = (moments > EARLIEST) & (moments < LATEST)
    return _nanoseconds(moments.where(in_range))


def _nanoseconds(moments: pd.Series) -> pd.Series:
    """Returns them in the unit in which MLflow passes datetimes to a model."""
    return moments.astype("datetime64[ns]")


def _looks_like_some_date(cells: pd.Series) -> pd.Series:
    looks = [cells.str.fullmatch(pattern, na=False).astype("bool") for pattern, _ in FORMATS]
    return pd.concat(looks, axis="columns").any(axis="columns")


def _looks(cells: pd.Series, pattern: re.Pattern[str]) -> pd.Series:
    return cells.str.fullmatch(pattern).astype("bool")
