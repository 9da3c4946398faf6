"""Your features: raw rows in, model inputs out. Edit `preprocess_columns`; nothing else needs to know.

`scripts/train.py` makes `preprocess` the first step of the pipeline that it registers, so training and
serving run the same code. A model is served only beside the file it was trained with: after an edit, train
again.

Three rules keep a served number equal to the number at training time, and serving fast:

- Row by row. Requests are answered in batches, so what a row becomes must not depend on the rows that came
  with it: no means, no ranks, no `get_dummies`, no categories of "these" rows. What is learned from data
  (a median, a list of categories) belongs in the pipeline, which remembers it.
- No state. No counters, clocks, files or globals that change, and the arrays that come in stay as they are.
- NumPy and the standard library. A compiled model runs `preprocess_columns` without pandas. Whoever needs
  pandas writes it into `preprocess` and deletes `preprocess_columns`: that step then runs as it was trained,
  and the rest of the pipeline is compiled all the same.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

CHARGES = "TotalCharges"
"""In the Telco churn file a number written as text, blank for customers who have not been billed yet."""


def preprocess_columns(columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Turns raw columns into the columns that the model is fitted on.

    Args:
        columns: an array of shape `(n_rows,)` for each column by its name. Text is an object array of `str`,
            in which a missing value is None or NaN; a missing number is NaN.

    Returns:
        Arrays of as many rows in the same order. A text column `TotalCharges` has become float64, and each column of
        dates the numbers of `date_parts`.

    Raises:
        ValueError: a text in `TotalCharges` is neither blank nor a number. Names the row, never the value.
    """
    charges = columns.get(CHARGES)
    if charges is not None and charges.dtype.kind not in "biuf":
        numbers = [text_to_number(cell, row) for row, cell in enumerate(charges.tolist())]
        columns = {**columns, CHARGES: np.array(numbers, dtype=np.float64)}
    for name in [name for name, values in columns.items() if values.dtype.kind == "M"]:
        columns = {**columns, **date_parts(name, columns[name])}
        del columns[name]
    return columns


def date_parts(name: str, moments: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Returns what a model can learn from dates, as float64 by column; NaN where a date is missing.

    `…_days` is the time since 1970-01-01. The time of the year, of the week and of the day are points on a circle, so
    that 31 December is beside 1 January: `…_year_sin`, `…_year_cos`, `…_week_sin` and so on.

    Args:
        name: of their column.
        moments: datetime64 of shape `(n_rows,)`, in UTC.
    """
    missing = np.isnat(moments)
    days = np.where(missing, np.datetime64(0, "D"), moments.astype("datetime64[D]"))
    whole_days = days.astype(np.float64)
    day_of_year = whole_days - days.astype("datetime64[Y]").astype("datetime64[D]").astype(np.float64)
    time_of_day = np.where(missing, 0.0, (moments - days) / np.timedelta64(24 * 60 * 60, "s"))
    turns = {
        "year": day_of_year / 365.2425,  # the mean year of the calendar
        "week": (whole_days + 3) % 7 / 7,  # 1970-01-01 was a Thursday
        "day": time_of_day,
    }
    parts = {f"{name}_days": whole_days + time_of_day}
    for period, turn in turns.items():
        parts[f"{name}_{period}_sin"] = np.sin(2 * np.pi * turn)
        parts[f"{name}_{period}_cos"] = np.cos(2 * np.pi * turn)
    return {part: np.where(missing, np.nan, values) for part, values in parts.items()}


def text_to_number(cell: Any, row: int) -> float:
    """Returns the number that a cell of `TotalCharges` holds; NaN where it is blank or missing."""
    if isinstance(cell, str):
        if not cell or cell.isspace():
            return math.nan
        try:
            number = float(cell)
        except ValueError:
            number = math.inf
        if not math.isfinite(number) or "_" in cell:
            raise ValueError(f"row {row}, column {CHARGES!r}: the text is not a number")
        return number
    # Not a number: what pandas calls NA, among others.
    return float(cell) if isinstance(cell, (int, float)) else math.nan


def preprocess(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Returns what `preprocess_columns` makes of the rows, as a frame with their index."""
    before = {str(name): rows[name].to_numpy() for name in rows}
    after = preprocess_columns(before)
    # As a list, so that pandas finds out itself whether objects are text.
    changed: dict[str, Any] = {
        name: values.tolist() if values.dtype.kind == "O" else values
        for name, values in after.items()
        if values is not before.get(name)
    }
    if list(after) == list(before):
        return rows.assign(**changed) if changed else rows
    return rows[[name for name in rows if str(name) in after]].assign(**changed)[list(after)]
