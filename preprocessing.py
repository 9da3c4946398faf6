"""Your features: raw rows in, model inputs out. Edit `preprocess`; nothing else needs to know.

`scripts/train.py` makes it the first step of the pipeline that it registers, so training and serving run
the same code. A model is served only beside the file it was trained with: after an edit, train again.

Two rules keep a served number equal to the number at training time:

- Row by row. Requests are answered in batches, so what a row becomes must not depend on the rows that came
  with it: no means, no ranks, no `get_dummies`, no categories of "this" frame. What is learned from data
  (a median, a list of categories) belongs in the pipeline, which remembers it.
- No state. No counters, clocks, files or globals that change, and the frame that comes in stays as it is.
"""

import math

import pandas as pd

CHARGES = "TotalCharges"
"""In the Telco churn file a number written as text, blank for customers who have not been billed yet."""


def preprocess(rows: pd.DataFrame) -> pd.DataFrame:
    """Turns raw rows into the rows that the model is fitted on.

    Returns:
        A frame of as many rows in the same order; a text column `TotalCharges` has become float64.

    Raises:
        ValueError: a text in `TotalCharges` is neither blank nor a number. Names the row, never the value.
    """
    if CHARGES in rows and not pd.api.types.is_numeric_dtype(rows[CHARGES]):
        numbers = [text_to_number(cell, row) for row, cell in enumerate(rows[CHARGES])]
        rows = rows.assign(**{CHARGES: pd.Series(numbers, index=rows.index, dtype="float64")})
    return rows


def text_to_number(cell: object, row: int) -> float:
    """Returns the number that a cell of `TotalCharges` holds; NaN where it is blank or missing."""
    if cell is None or cell is pd.NA:
        return math.nan
    if isinstance(cell, str):
        if not cell.strip():
            return math.nan
        try:
            number = float(cell)
        except ValueError:
            number = math.inf
        if not math.isfinite(number) or "_" in cell:
            raise ValueError(f"row {row}, column {CHARGES!r}: the text is not a number")
        return number
    return float(cell)  # type: ignore[arg-type]  # a number, or NaN, in a column of mixed types
