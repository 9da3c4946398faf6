"""Datetimes of the years that a service takes, for Schemathesis: their format alone has others, too."""

import datetime as dt

import schemathesis
from hypothesis import strategies as st

_FIRST, _LAST = (dt.datetime(year, month, 2) for year, month in ((1678, 1), (2261, 12)))  # noqa: DTZ001  # they get one
_ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))

schemathesis.openapi.format(
    "date-time", st.datetimes(_FIRST, _LAST, timezones=_ZONES).map(dt.datetime.isoformat)
)
