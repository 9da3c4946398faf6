"""The Parquet files of the log: how they are written, and which are deleted."""

import contextlib
import datetime as dt
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from serving.monitoring.prediction_log.files import find_files

GROUP_ROWS = 50_000
"""Rows of a row group: a reader skips those outside the times that it asks for."""

GROUP_BYTES = 32_000_000
"""Memory of rows at which a smaller group is written."""


class PartitionFile:
    """A Parquet file that appears when it is complete."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Creates it aside.

        Raises:
            OSError: it cannot be created.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._aside = path, path.with_name(f".{path.name}.tmp")
        try:
            self._writer: Any = pq.ParquetWriter(self._aside, schema, compression="zstd")
        except OSError:
            self._aside.unlink(missing_ok=True)
            raise
        self._tables: list[pa.Table] = []
        self._n_rows = self._n_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Adds rows.

        Raises:
            OSError: they cannot be written.
        """
        self._tables.append(table)
        self._n_rows += table.num_rows
        self._n_bytes += table.nbytes
        if self._n_rows >= GROUP_ROWS or self._n_bytes >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if self._tables:
            self._writer.write_table(
                pa.concat_tables(self._tables).combine_chunks(), row_group_size=GROUP_ROWS
            )
            self._tables = []
            self._n_rows = self._n_bytes = 0

    def publish(self) -> None:
        """Completes the file and moves it to its place.

        Raises:
            OSError: it cannot be written.
        """
        self._write_group()
        self._writer.close()
        descriptor = os.open(self._aside, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._aside.replace(self._path)

    def discard(self) -> None:
        """Removes what is not complete."""
        with contextlib.suppress(OSError):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._aside.unlink(missing_ok=True)


def delete_old(folder: Path, keep_bytes: float, oldest: dt.date) -> int:
    """Deletes files of days before `oldest`, then the earliest ones above a total size; returns what is left, in bytes.

    Raises:
        OSError: a file cannot be deleted.
    """
    files = [(file, _size(file.path)) for file in find_files(folder)]
    total = sum(n_bytes for _, n_bytes in files)
    for file, n_bytes in files:
        if file.date >= oldest.isoformat() and total <= keep_bytes:
            break
        file.path.unlink(missing_ok=True)
        total -= n_bytes
        for parent in file.path.parents[:3]:
            with contextlib.suppress(OSError):  # it is not empty
                parent.rmdir()
    return total


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another replica has deleted it
        return 0
