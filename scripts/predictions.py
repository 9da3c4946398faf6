"""Prints rows of the prediction log, the last ones by default.

    .venv/bin/python scripts/predictions.py --folder log
    .venv/bin/python scripts/predictions.py --since 24h --version 3 --role challenger --json
    .venv/bin/python scripts/predictions.py --request-id 5f0c… --columns label,score,input_tenure

Also shows rows that are not in a Parquet file yet.
Exit code 0; 2 with one line on stderr if the log cannot be read.
"""

import argparse
import datetime as dt
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402  # needs the line above
import pyarrow.compute as pc  # noqa: E402  # the same

from scripts.evaluating.log import (  # noqa: E402  # the same
    add_folder_option,
    add_period_options,
    check_folder,
    read_rows_of_log,
)
from scripts.lifecycle import LifecycleError  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, IMPOSSIBLE, OneLineParser, align  # noqa: E402  # the same
from serving.monitoring.prediction_log.reading import Period  # noqa: E402  # the same
from serving.settings import Settings, SettingsError, load_settings, split_names  # noqa: E402  # the same

SHOWN = ("time", "request_id", "row", "key", "role", "label", "score", "value", "latency_ms")
"""Columns of the table without --columns."""

MAX_CHARACTERS = 40
"""Of a cell of the table; --json has all of it."""


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_folder_option(parser, settings)
    parser.add_argument("--name", help="model (all)")
    parser.add_argument("--version", help="its version (all)")
    parser.add_argument("--role", help="champion, challenger or shadow (all)")
    parser.add_argument("--key", help="rows with this key; its hash if keys are hashed")
    parser.add_argument("--request-id", help="rows of this request")
    add_period_options(parser)
    parser.add_argument("--last", type=int, default=20, help="rows to print, 0 for all (%(default)s)")
    parser.add_argument("--columns", help=f"separated by commas ({','.join(SHOWN)}; all with --json)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per row")
    return parser.parse_args(arguments)


def select(options: argparse.Namespace) -> pa.Table:
    """Returns the rows and columns that the options name, in the order of their times.

    Raises:
        LifecycleError: there is no such log, or no such column.
    """
    folder = check_folder(options.folder)
    wanted = split_names(options.columns) if options.columns else None
    filters = {"role": options.role, "key": options.key, "request_id": options.request_id}
    needed = None if options.json and wanted is None else dict.fromkeys([*SHOWN, *filters, *(wanted or ())])
    table = read_rows_of_log(
        folder,
        model=options.name,
        version=options.version,
        period=Period(options.since, options.until),
        columns=None if needed is None else list(needed),
    )
    for name, value in filters.items():
        if value is not None and table.num_rows:
            table = table.filter(pc.equal(table[name], value))
    if options.last and table.num_rows > options.last:
        table = table.slice(table.num_rows - options.last)
    if wanted is None:
        return (
            table
            if options.json
            else table.select([n for n in ("model", "version", *SHOWN) if n in table.column_names])
        )
    missing = [name for name in wanted if name not in table.column_names]
    if missing and table.num_rows:
        raise LifecycleError(f"the log has no column {', '.join(map(repr, missing))} in these rows")
    return table.select([name for name in wanted if name in table.column_names])


def to_cell(value: Any) -> str:
    """Returns a value as the table shows it."""
    match value:
        case None:
            return "–"
        case dt.datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        case float():
            return f"{value:.6g}"
        case _:
            text = " ".join(str(value).split())
            return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"


def to_plain(value: Any) -> Any:
    """Returns a value as JSON shows it: maps as objects, times in ISO 8601."""
    match value:
        case dt.datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case [(str(), _), *_]:
            return dict(value)
        case _:
            return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        options = parse_arguments(arguments, load_settings())
        table = select(options)
    except (LifecycleError, SettingsError) as error:
        print(f"predictions.py: {error}", file=sys.stderr)
        return IMPOSSIBLE
    try:
        if options.json:
            for batch in table.to_batches():
                for row in batch.to_pylist():
                    print(
                        json.dumps({name: to_plain(value) for name, value in row.items()}, ensure_ascii=False)
                    )
        elif table.num_rows:
            rows = [[to_cell(value) for value in row.values()] for row in table.to_pylist()]
            print("\n".join(align([table.column_names, *rows])))
        else:
            print("no rows")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python fails to flush it at exit
    return DONE


if __name__ == "__main__":
    sys.exit(main())
