"""Sample rows that are logged with a model: its inputs at training."""

import datetime as dt
from typing import Any

import pandas as pd

MAX_REFERENCE_ROWS = 1_000
N_EXAMPLE_ROWS = 5


def reference_instances(inputs: pd.DataFrame, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Draws up to `MAX_REFERENCE_ROWS` raw training rows, in the form of a request.

    Returns:
        `{"instances": [{column: value, …}, …]}` of JSON's own types; a missing value is None.
    """
    drawn = inputs.sample(n=min(MAX_REFERENCE_ROWS, len(inputs)), random_state=seed)
    columns = [
        [
            None if missing else to_json(value)
            for value, missing in zip(column.tolist(), column.isna(), strict=True)
        ]
        for _, column in drawn.items()
    ]
    names = [str(name) for name in drawn]
    return {"instances": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]}


def to_json(value: Any) -> Any:
    """Returns a cell as one of JSON's own types; a datetime as ISO 8601."""
    return value.isoformat() if isinstance(value, dt.datetime) else value


def example_rows(inputs: pd.DataFrame) -> pd.DataFrame:
    """Returns the first rows, to show a request: complete ones, if there are any.

    Source: MLflow writes a missing value into `input_example.json` as the token NaN, which is not JSON.
    """
    complete = inputs.dropna()
    return (inputs if complete.empty else complete).head(N_EXAMPLE_ROWS)
