"""Adds the answers in the log's Parquet files that the store has not; a process that ends when it has.

    python -m serving.monitoring.feedback.catch_up OPTIONS NAMES

NAMES is a JSON list of journals that the keeper has read itself.
"""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Returns freed memory to the system.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

import msgspec  # needs the line above
import pyarrow as pa  # the same
import pyarrow.parquet as pq  # the same

from serving.monitoring.feedback.answers import Answer, answers_in, log_columns  # the same
from serving.monitoring.feedback.databases import StoreError  # the same
from serving.monitoring.feedback.options import STORE_VARIABLE, Options  # the same
from serving.monitoring.feedback.store import Store, open_store  # the same
from serving.monitoring.prediction_log.files import LogFile, find_files  # the same
from serving.process.logs import configure_logging  # the same

log = logging.getLogger("serving.feedback")

BATCH_ROWS = 10_000


def catch_up(store: Store, folder: Path, slices: tuple[str, ...], read_already: set[str]) -> int:
    """Adds the answers of all files that the store does not know; returns how many.

    Args:
        store: gets them.
        folder: of the log.
        slices: see `answers_of`.
        read_already: names of journals whose answers are in the store.

    Raises:
        StoreError: the store fails.
    """
    known = store.has_files()
    n_answers = 0
    for file in find_files(folder):
        name = file.path.relative_to(folder).as_posix()
        if name in known:
            continue
        if file.path.name.rpartition("-")[0] in read_already:
            store.add_answers((), name)
            continue
        try:
            n_answers += store.add_answers(_answers(file, slices), name)
        except FileNotFoundError:  # it became too old
            continue
        except OSError as error:
            log.warning("%s: %s (feedback skips this file)", file.path, error)
            if error.errno is None:  # pyarrow's, about damaged contents; the others may pass
                store.add_answers((), name)
        except (pa.ArrowException, ValueError, KeyError) as error:
            log.warning("%s: %s: %s (feedback skips this file)", file.path, type(error).__name__, error)
            store.add_answers((), name)
    return n_answers


def _answers(file: LogFile, slices: tuple[str, ...]) -> Iterator[Answer]:
    with pq.ParquetFile(file.path) as parquet:
        names = parquet.schema_arrow.names
        columns = [name for name in log_columns(slices) if name in names]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
            table = pa.Table.from_batches([batch])
            for position, (name, value) in enumerate((("model", file.model), ("version", file.version))):
                table = table.add_column(position, name, pa.repeat(value, table.num_rows))
            yield from answers_in(table, slices)


def main(options: Options, read_already: set[str]) -> None:
    """Adds them; its parent reports a store that fails."""
    configure_logging(options.log_format)
    try:
        with open_store(os.environ[STORE_VARIABLE], Path(options.folder)) as store:
            catch_up(store, Path(options.folder), options.slices, read_already)
    except StoreError:
        sys.exit(1)


if __name__ == "__main__":
    from serving.process.child import lower_priority

    lower_priority()
    pa.set_cpu_count(1)
    main(msgspec.json.decode(sys.argv[1], type=Options), set(msgspec.json.decode(sys.argv[2])))
