"""Turns complete journals into Parquet files, and deletes old ones; a process that ends when it has.

    python -m serving.monitoring.prediction_log.converter OPTIONS OLDEST_DATE

Also converts the journals that a crash has left behind. A journal always makes the same file names, so that one that is
converted again, after a crash, replaces its files.
"""

import datetime as dt
import os
import sys
from collections.abc import Iterable
from pathlib import Path

# Returns freed memory to the system.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

import msgspec  # needs the line above
import pyarrow as pa  # the same
import pyarrow.compute as pc  # the same

from serving.monitoring.prediction_log.dataset import PartitionFile, delete_old  # the same
from serving.monitoring.prediction_log.files import partition_folder  # the same
from serving.monitoring.prediction_log.frames import Frame, read_frames  # the same
from serving.monitoring.prediction_log.journal import find_journals, taking  # the same
from serving.monitoring.prediction_log.options import Options, Outcome  # the same
from serving.monitoring.prediction_log.rows import Rows  # the same
from serving.monitoring.prediction_log.tables import UNREADABLE, to_table  # the same


def convert(frames: Iterable[Frame], folder: Path, name: str) -> int:
    """Writes messages into Parquet files.

    Args:
        frames: the messages.
        folder: of the log.
        name: of the files, without the number of each.

    Returns:
        The number of messages that cannot be read.

    Raises:
        OSError: a file cannot be written; there are no parts of one.
    """
    decoder = msgspec.msgpack.Decoder(Rows)
    files: dict[tuple[str, str, dt.date, pa.Schema], PartitionFile] = {}
    n_damaged = 0
    try:
        for frame in frames:
            try:
                rows = decoder.decode(frame.payload)
                days = list(_by_day(to_table(rows)))
            except UNREADABLE:
                n_damaged += 1
                continue
            for date, table in days:
                key = (rows.model, rows.version, date, table.schema)
                if key not in files:
                    path = (
                        partition_folder(folder, rows.model, rows.version, date)
                        / f"{name}-{len(files)}.parquet"
                    )
                    files[key] = PartitionFile(path, table.schema)
                files[key].add(table)
        for file in files.values():
            file.publish()
    except BaseException:
        for file in files.values():
            file.discard()
        raise
    return n_damaged


def _by_day(table: pa.Table) -> Iterable[tuple[dt.date, pa.Table]]:
    dates = pc.cast(table["time"], pa.date32())
    found = pc.unique(dates).to_pylist()
    for date in found:
        yield date, table if len(found) == 1 else table.filter(pc.equal(dates, date))


def run(options: Options, oldest: dt.date) -> Outcome:
    """Converts every journal that no running writer holds, and deletes old files."""
    folder = Path(options.folder)
    n_damaged = n_bytes = 0
    try:
        for path in find_journals(folder):
            with taking(path) as is_free:
                if is_free:
                    n_damaged += convert(read_frames(path), folder, path.stem)
                    path.unlink()
        n_bytes = delete_old(folder, options.keep_bytes, oldest)
        n_bytes += sum(path.stat().st_size for path in find_journals(folder))
    except OSError as error:
        return Outcome(n_bytes, error.strerror or type(error).__name__, n_damaged)
    return Outcome(n_bytes, "", n_damaged)


if __name__ == "__main__":
    from serving.process.child import lower_priority

    lower_priority()
    pa.set_cpu_count(1)
    outcome = run(msgspec.json.decode(sys.argv[1], type=Options), dt.date.fromisoformat(sys.argv[2]))
    print(msgspec.json.encode(outcome).decode())
