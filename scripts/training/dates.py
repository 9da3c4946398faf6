"""Dates that a CSV file has as text."""

import re

import pandas as pd

from scripts.training import TrainingError
from scripts.training.csv_format import MOSTLY

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

READABLE = {ISO: "YYYY-MM-DD", "%d": "DD", "%m": "MM", "%Y": "YYYY"}


class NoDates(Exception):
    """A column is not one of dates; the message says what keeps it, and is empty where nothing looks like one."""


def find_dates(cells: pd.Series) -> tuple[pd.Series, str]:
    """Returns the moments that a column of text holds, and their format for people.

    Args:
        cells: text; a missing cell is NaN.

    Returns:
        datetime64[ns] in UTC without a zone, and such as `DD.MM.YYYY`.

    Raises:
        NoDates: the texts are no dates, not all of them, or may be read in two ways.
    """
    there = cells.dropna()
    for pattern, formats in FORMATS:
        if not _looks(there.head(N_FIRST), pattern).mean() > MOSTLY / 2:  # most columns are no dates
            continue
        looks = _looks(there, pattern)
        if not looks.mean() > MOSTLY:
            continue
        if not looks.all():
            raise NoDates(_stray(cells, looks))
        tried = [(one, _read(there, one)) for one in formats]
        read = [(one, moments) for one, moments in tried if moments.notna().all()]
        if not read:
            wrong = min((moments.isna() for _, moments in tried), key=sum)
            raise NoDates(
                f"{int(wrong.sum()):,} of its dates are in no calendar, or not written as the others, the first in line "
                f"{line_of(cells, wrong)}"
            )
        if len(read) > 1 and not read[0][1].equals(read[1][1]):
            raise NoDates(
                f"--date {cells.name}=%d/%m/%Y or =%m/%d/%Y says whether the day or the month comes first"
            )
        one, moments = read[0]
        return moments.reindex(cells.index), describe_format(one)
    raise NoDates("")


def parse_dates(cells: pd.Series, form: str | None) -> tuple[pd.Series, str]:
    """Returns the moments of a column that somebody says is one of dates, and their format.

    Args:
        cells: text; a missing cell is NaN.
        form: of `strptime`, such as `%d/%m/%Y`; None finds it.

    Raises:
        TrainingError: a cell is no date; names its row.
    """
    if form is None:
        try:
            return find_dates(cells)
        except NoDates as error:
            why = (
                str(error)
                or "its texts look like no dates; say how they are written, such as --date day=%d/%m/%Y"
            )
            raise TrainingError(f"column {cells.name!r} is to be a date: {why}") from None
    moments = pd.to_datetime(cells, format=form, errors="coerce", utc=True).dt.tz_localize(None)
    wrong = moments.isna() & cells.notna()
    if wrong.any():
        raise TrainingError(
            f"column {cells.name!r}: {int(wrong.sum()):,} cells are no dates of the form {form}, the first "
            f"in line {line_of(cells, wrong)}: {cells[wrong].iloc[0]!r}"
        )
    return _nanoseconds(moments), form


def describe_format(form: str) -> str:
    """Returns a format in the way people write it."""
    for code, readable in READABLE.items():
        form = form.replace(code, readable)
    return form


def _read(cells: pd.Series, form: str) -> pd.Series:
    """Returns the moments; NaT for a text that is none."""
    if form != ISO and cells.str.contains(":", regex=False).any():
        form += " %H:%M:%S" if cells.str.count(":").max() == 2 else " %H:%M"
        cells = cells.str.replace("T", " ", regex=False)
    moments = pd.to_datetime(cells, format=form, utc=True, errors="coerce").dt.tz_localize(None)
    in_range = (moments > EARLIEST) & (moments < LATEST)
    return _nanoseconds(moments.where(in_range))


def _nanoseconds(moments: pd.Series) -> pd.Series:
    """Returns them in the unit in which MLflow hands datetimes to a model."""
    return moments.astype("datetime64[ns]")


def _looks(cells: pd.Series, pattern: re.Pattern[str]) -> pd.Series:
    return cells.str.fullmatch(pattern).astype("bool")


def line_of(cells: pd.Series, mask: pd.Series) -> int:
    """Returns the line of the file that the first marked cell is in, where no cell before it has several lines."""
    return int(mask.reindex(cells.index, fill_value=False).to_numpy().argmax()) + 2  # 1 is the header


def _stray(cells: pd.Series, looks: pd.Series) -> str:
    return f"{int((~looks).sum()):,} of its cells are no dates, the first in line {line_of(cells, ~looks)}"
