"""Reads predictions and truths: a CSV or Parquet file, a folder of Parquet files, or the prediction log."""

import argparse
from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from scripts.evaluating.log import read_rows_of_log
from scripts.lifecycle import LifecycleError
from scripts.training.column_options import no_column
from scripts.training.table import read_csv
from serving.monitoring.prediction_log.reading import is_log
from serving.monitoring.quality.answers import to_text

REQUEST = ("request_id", "row")
KEY = "key"
TIME = "time"
PROBABILITIES = "probabilities"
PROBABILITY = "probability of "
"""Prefix of the columns that a map or struct of probabilities becomes."""


def find_keys(*tables: pd.DataFrame) -> list[str]:
    """Returns the columns that identify a row in all tables; empty if there are none."""
    if all(REQUEST[0] in table for table in tables):
        return [name for name in REQUEST if all(name in table for table in tables)]
    return [KEY] if all(KEY in table for table in tables) else []


def read(file: Path, columns: Collection[str] | None, options: argparse.Namespace) -> pd.DataFrame:
    """Returns the rows of a file or folder.

    Args:
        file: its path.
        columns: those to read, as far as it has them; None reads all.
        options: the format of a CSV file.

    Raises:
        LifecycleError: it cannot be read.
    """
    if not file.is_dir() and file.suffix.lower() not in {".parquet", ".pq"}:
        return read_csv(file, options.sep, options.decimal).rows
    table = _read_log(file, columns, options.name) if is_log(file) else _read_parquet(file, columns)
    rows: pd.DataFrame = spread_probabilities(table).to_pandas(ignore_metadata=True)
    return rows


def _read_log(folder: Path, columns: Collection[str] | None, model: str | None) -> pa.Table:
    table = read_rows_of_log(folder, model=model, columns=columns if columns is None else sorted(columns))
    if not table.num_rows:
        raise LifecycleError(f"{folder}: the prediction log has no rows{f' of {model!r}' if model else ''}")
    models = pc.unique(table["model"]).to_pylist()
    if len(models) > 1:
        raise LifecycleError(
            f"{folder} has several models; choose one with --name: {', '.join(sorted(models))}"
        )
    return table


def _read_parquet(file: Path, columns: Collection[str] | None) -> pa.Table:
    try:
        dataset = open_dataset(file)
        names = [name for name in dataset.schema.names if columns is None or name in columns]
        return dataset.to_table(columns=names)
    except (OSError, pa.ArrowException) as error:
        raise LifecycleError(
            f"{file}: not Parquet that can be read: {' '.join(str(error).split())}"
        ) from None


def open_dataset(file: Path) -> ds.Dataset:
    """Returns the dataset with the columns of all its files, which may differ.

    Raises:
        LifecycleError: it has no file.
    """
    files = [file]
    if file.is_dir():
        files = [part for part in sorted(file.rglob("*.parquet")) if not part.name.startswith((".", "_"))]
    if not files:
        raise LifecycleError(f"{file}: the folder has no Parquet file")
    base = str(file) if file.is_dir() else None
    dataset = ds.dataset(
        list(map(str, files)), format="parquet", partitioning="hive", partition_base_dir=base
    )
    schemas = [fragment.physical_schema for fragment in dataset.get_fragments()]
    schema = pa.unify_schemas([*schemas, dataset.schema], promote_options="permissive")
    return dataset.replace_schema(schema)


def spread_probabilities(table: pa.Table) -> pa.Table:
    """Replaces the map or struct of probabilities by a column for each class."""
    if PROBABILITIES not in table.column_names:
        return table
    column = table[PROBABILITIES].combine_chunks()
    table = table.drop_columns([PROBABILITIES])
    if pa.types.is_struct(column.type):
        parts = {column.type.field(i).name: pc.struct_field(column, i) for i in range(column.type.num_fields)}
    elif pa.types.is_map(column.type):
        names = pc.unique(column.keys).to_pylist()
        parts = {str(name): pc.map_lookup(column, name, "first") for name in names}
    else:
        return table
    for name, values in parts.items():
        table = table.append_column(f"{PROBABILITY}{name}", values)
    return table


def to_texts(values: pd.Series) -> pd.Series:
    """Returns labels or keys as text, so that those of files with different types are equal."""
    codes, uniques = pd.factorize(values.astype(object))
    texts = pd.Series([*(to_text(value) for value in uniques), None], dtype=object)
    return pd.Series(texts.to_numpy()[codes], index=values.index, dtype=object)


def check_columns(rows: pd.DataFrame, file: Path | str, names: Iterable[str]) -> None:
    """Checks that a file has columns.

    Raises:
        LifecycleError: one is missing.
    """
    for name in names:
        if name not in rows:
            raise LifecycleError(f"{file}: {no_column(name, rows.columns)}")
