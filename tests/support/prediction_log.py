"""A prediction log with the columns that the service writes, of invented versions and customers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

CLASSES = ("no", "yes")


def make_log(
    n_rows: int = 2_000, *, version: int = 7, role: str = "champion", skill: float = 1.0, seed: int = 0
) -> pd.DataFrame:
    """Rows of a version with the truth in `churned`; with more skill, the version knows more about it."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=n_rows)
    truth = random.random(n_rows) < 1 / (1 + np.exp(-2 * signal))
    seen = skill * signal + (1 - skill) * np.random.default_rng(seed + version).normal(size=n_rows)
    score = 1 / (1 + np.exp(-2 * seen))
    return pd.DataFrame(
        {
            "time": pd.date_range("2026-01-01", periods=n_rows, freq="s", tz="UTC"),
            "request_id": [f"request-{position // 2}" for position in range(n_rows)],
            "row": np.arange(n_rows) % 2,
            "key": [f"customer-{position}" for position in range(n_rows)],
            "version": str(version),
            "role": role,
            "label": np.where(score >= 0.5, "yes", "no"),
            "score": score,
            "value": None,
            "region": random.choice(["east", "west"], n_rows),
            "churned": np.where(truth, "yes", "no"),
        }
    )


def write_log(folder: Path, rows: pd.DataFrame) -> Path:
    """Writes the rows as the log does: a folder of Parquet by version, with a map of probabilities, and without truths."""
    for version, part in rows.groupby("version"):
        table = pa.Table.from_pandas(part.drop(columns=["churned", "version", "time"]), preserve_index=False)
        table = table.append_column("time", pa.array(part["time"].to_list())).append_column(
            "probabilities",
            pa.array(
                [[("no", 1 - score), ("yes", score)] for score in part["score"]],
                type=pa.map_(pa.string(), pa.float64()),
            ),
        )
        if version != rows["version"].iloc[0]:
            table = table.append_column("another_input", pa.array(np.zeros(len(part))))
        part_folder = folder / "model=churn" / f"version={version}" / "date=2026-01-01"
        part_folder.mkdir(parents=True)
        pq.write_table(table, part_folder / "part.parquet")
    return folder


def write_truths(file: Path, rows: pd.DataFrame) -> Path:
    """Writes their truths."""
    rows[["request_id", "row", "churned"]].to_csv(file, index=False)
    return file
