"""Dates that a CSV file has as text."""

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
"""What dates look like, and how that may be read."""

EARLIEST, LATEST = pd.Timestamp.min, pd.Timestamp.max
"""Of nanoseconds."""

N_FIRST = 1_000
"""Cells that are looked at before all are."""

READABLE = {ISO: "YYYY-MM-DD", "%d": "DD", "%m": "MM", "%Y": "YYYY", "%H": "hh", "%M": "mm", "%S": "ss"}


class Dates(NamedTuple):
    """What a column of dates holds."""

    moments: pd.Series
    """datetime64[ns] in UTC without a zone; NaT where a cell is missing, or no date."""
    form: str
    """For `pandas.to_datetime`, such as `%d.%m.%Y`."""
    is_odd: pd.Series
    """Marks cells that are no dates: placeholders such as `n/a`, days that are in no calendar, and other forms."""

    def describe(self) -> str:
        """Returns the form, as people write it, and which cells are no dates."""
        form = self.form
        for code, readable in READABLE.items():
            form = form.replace(code, readable)
        odd = describe_missing(self.is_odd, "dates")
        return f"{form}; {odd}" if odd else form


class NoDates(Exception):
    """A column is not one of dates; the message says what keeps it, and is empty where nothing looks like one."""


def find_dates(cells: pd.Series) -> Dates:
    """Returns the dates that a column of text holds; a few odd cells count as missing, as among numbers.

    Args:
        cells: text; a missing cell is NaN.

    Raises:
        NoDates: the texts are no dates, not nearly all of them, or may be read in two ways.
    """
    there = cells.dropna()
    for pattern, formats in FORMATS:
        if not _looks(there.head(N_FIRST), pattern).mean() > MOSTLY / 2:  # most columns are no dates
            continue
        looks = _looks(there, pattern)
        if looks.mean() > MOSTLY:
            dates = _read_as(cells, there[looks], formats)
            if not are_placeholders(dates.is_odd, cells):
                raise NoDates(f"{describe(dates.is_odd, 'dates')} (else --date)")
            return dates
    raise NoDates("")


def parse_dates(cells: pd.Series, form: str | None) -> Dates:
    """Returns the dates of a column that somebody says is one of dates; whatever else is in it counts as missing.

    Args:
        cells: text; a missing cell is NaN.
        form: of `strptime`, such as `%d/%m/%Y`; None finds it.

    Raises:
        TrainingError: none of them is a date, or many are dates of another form.
    """
    there = cells.dropna()
    if form is None:
        pattern, formats = max(FORMATS, key=lambda one: _looks(there, one[0]).sum())
        looks = _looks(there, pattern)
        if not looks.any():
            raise TrainingError(
                f"column {cells.name!r} is to be a date: its texts look like no dates; say how they are written, "
                "such as --date day=%d/%m/%Y"
            )
        try:
            dates = _read_as(cells, there[looks], formats)
        except NoDates as error:
            raise TrainingError(f"column {cells.name!r} is to be a date: {error}") from None
    else:
        dates = _to_dates(cells, _read(cells, form), form)
    is_other = dates.is_odd & _looks_like_some_date(cells)
    is_none = len(there) > 0 and bool(dates.moments.isna().all())
    if is_none or (is_other.any() and not are_few(is_other, cells[~dates.is_odd | is_other])):
        wrong = dates.is_odd if is_none else is_other
        raise TrainingError(
            f"column {cells.name!r}: {int(wrong.sum()):,} cells are no dates of the form {dates.form}, the first "
            f"in line {line_of(wrong)}: {cells[wrong].iloc[0]!r}"
        )
    return dates


def _read_as(cells: pd.Series, looking: pd.Series, formats: Sequence[str]) -> Dates:
    """Returns the dates of a column in that of some formats which reads all that look so, or else nearly all.

    Raises:
        NoDates: none of them does, or two do and differ.
    """
    time = "" if formats == (ISO,) else _time_of(looking)
    read = [(form + time, _read(looking, form + time)) for form in formats]
    whole = [one for one in read if one[1].notna().all()]
    fitting = whole or [one for one in read if are_few(one[1].isna(), looking)]
    if not fitting:
        wrong = min((moments.isna() for _, moments in read), key=sum).reindex(cells.index, fill_value=False)
        raise NoDates(
            f"{int(wrong.sum()):,} of its dates are in no calendar, or not written as the others, the first in line "
            f"{line_of(wrong)}"
        )
    form, moments = fitting[0]
    if len(fitting) > 1 and not moments.equals(fitting[1][1]):
        raise NoDates(
            f"--date {cells.name}=%d/%m/%Y or =%m/%d/%Y says whether the day or the month comes first"
        )
    return _to_dates(cells, moments, form)


def _to_dates(cells: pd.Series, moments: pd.Series, form: str) -> Dates:
    moments = moments.reindex(cells.index)
    return Dates(moments, form, moments.isna() & cells.notna())


def _time_of(cells: pd.Series) -> str:
    """Returns how the time is written that follows the day."""
    mark = "T" if "T" in cells.iloc[0] else " "
    return ("", f"{mark}%H:%M", f"{mark}%H:%M:%S")[int(cells.str.count(":").max())]


def _read(cells: pd.Series, form: str) -> pd.Series:
    """Returns the moments; NaT for a text that is none."""
    moments = pd.to_datetime(cells, format=form, utc=True, errors="coerce").dt.tz_localize(None)
    in_range = (moments > EARLIEST) & (moments < LATEST)
    return _nanoseconds(moments.where(in_range))


def _nanoseconds(moments: pd.Series) -> pd.Series:
    """Returns them in the unit in which MLflow hands datetimes to a model."""
    return moments.astype("datetime64[ns]")


def _looks_like_some_date(cells: pd.Series) -> pd.Series:
    looks = [cells.str.fullmatch(pattern, na=False).astype("bool") for pattern, _ in FORMATS]
    return pd.concat(looks, axis="columns").any(axis="columns")


def _looks(cells: pd.Series, pattern: re.Pattern[str]) -> pd.Series:
    return cells.str.fullmatch(pattern).astype("bool")
