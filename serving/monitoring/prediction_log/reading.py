"""Reads the log, for scripts: Parquet files, and the journals whose rows are not in one yet."""

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.monitoring.prediction_log.files import PATTERN, find_files
from serving.monitoring.prediction_log.frames import read_frames
from serving.monitoring.prediction_log.journal import FOLDER, find_journals
from serving.monitoring.prediction_log.rows import Rows
from serving.monitoring.prediction_log.tables import UNREADABLE, to_table


class Period(msgspec.Struct, frozen=True):
    """A time span; None for no limit."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def includes_day(self, date: str) -> bool:
        """Whether a day, in ISO format, has a part in it."""
        since = self.since.astimezone(dt.UTC).date().isoformat() if self.since else ""
        until = self.until.astimezone(dt.UTC).date().isoformat() if self.until else date
        return since <= date <= until

    def select(self, table: pa.Table) -> pa.Table:
        """Returns the rows of a table that are in it."""
        times = table["time"]
        if self.since is not None:
            table = table.filter(pc.greater_equal(times, pa.scalar(self.since, times.type)))
        if self.until is not None:
            table = table.filter(pc.less(table["time"], pa.scalar(self.until, times.type)))
        return table


ALWAYS = Period()


def is_log(folder: Path) -> bool:
    """Whether a folder is that of a log."""
    return (folder / FOLDER).is_dir() or any(folder.glob(PATTERN))


def read_tables(
    folder: Path,
    *,
    model: str | None = None,
    version: str | None = None,
    period: Period = ALWAYS,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """Yields the log's rows in tables of one version each, with the columns `model` and `version` first.

    Args:
        folder: of the log.
        model: name of the only model to read.
        version: the only version to read.
        period: of the rows.
        columns: to read besides; those that a version does not have are left out. Default: all.

    Raises:
        OSError: a file cannot be read.
        pa.ArrowException: a file is damaged.
    """
    # Journals first: one that is converted meanwhile is then found in both places, not in none.
    read = set()
    for path in find_journals(folder):
        try:
            tables = list(_read_journal(path))
        except FileNotFoundError:
            continue
        read.add(path.stem)
        for rows_model, rows_version, table in tables:
            if model in (None, rows_model) and version in (None, rows_version):
                yield _name(period.select(table), rows_model, rows_version, columns)
    for file in find_files(folder):
        if file.path.name.rpartition("-")[0] in read or not period.includes_day(file.date):
            continue
        if model in (None, file.model) and version in (None, file.version):
            try:
                with pq.ParquetFile(file.path) as parquet:
                    names = parquet.schema_arrow.names
                    wanted = (
                        None if columns is None else ["time", *(name for name in columns if name in names)]
                    )
                    # By group of rows: a file of many does not have to fit into memory.
                    for group in range(parquet.num_row_groups):
                        table = parquet.read_row_group(group, columns=wanted)
                        yield _name(period.select(table), file.model, file.version, columns)
            except FileNotFoundError:  # it became too old
                continue


def read_log(
    folder: Path,
    *,
    model: str | None = None,
    version: str | None = None,
    period: Period = ALWAYS,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Returns the log's rows in the order of their times; columns that a version does not have are null there.

    Args and errors: as `read_tables`.
    """
    tables = list(read_tables(folder, model=model, version=version, period=period, columns=columns))
    if not tables:
        return pa.table({})
    whole = pa.concat_tables(tables, promote_options="permissive")
    return whole.sort_by("time") if "time" in whole.column_names else whole


def _read_journal(path: Path) -> Iterator[tuple[str, str, pa.Table]]:
    decoder = msgspec.msgpack.Decoder(Rows)
    found: dict[tuple[str, str, pa.Schema], list[pa.Table]] = {}
    for frame in read_frames(path):
        try:
            rows = decoder.decode(frame.payload)
            table = to_table(rows)
        except UNREADABLE:  # neither will the converter read it; it counts such messages
            continue
        found.setdefault((rows.model, rows.version, table.schema), []).append(table)
    for (model, version, _), tables in found.items():
        yield model, version, pa.concat_tables(tables)


def _name(table: pa.Table, model: str, version: str, columns: Sequence[str] | None) -> pa.Table:
    if columns is not None:
        table = table.select([name for name in columns if name in table.column_names])
    for position, (name, value) in enumerate((("model", model), ("version", version))):
        table = table.add_column(position, name, pa.repeat(value, table.num_rows))
    return table
