"""Reads the prediction log for scripts: rows that are still in journals too."""

import argparse
import contextlib
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from scripts.lifecycle import LifecycleError
from serving.monitoring.prediction_log.reading import ALWAYS, Period, read_log
from serving.settings import Settings

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

DATE = "date"
"""Column of the UTC day, as in the folders of the log."""


def add_folder_option(parser: argparse.ArgumentParser, settings: Settings) -> None:
    """Adds the option for the log's folder."""
    parser.add_argument(
        "--folder", type=Path, default=settings.log_predictions, help="of the log (SERVING_LOG_PREDICTIONS)"
    )


def add_period_options(parser: argparse.ArgumentParser, since: str | None = None) -> None:
    """Adds the options for the period; `since` is the default of its start."""
    parser.add_argument(
        "--since",
        type=parse_time,
        default=since,
        help=f"30m, 24h, 7d, or a time such as 2026-11-28T09:00 (UTC){f' ({since})' if since else ''}",
    )
    parser.add_argument("--until", type=parse_time, help="the same")


def parse_time(text: str) -> dt.datetime:
    """Reads a time, or a duration before now.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    duration = re.fullmatch(r"(\d+)([smhd])", text)
    if duration:
        seconds = int(duration[1]) * UNITS[duration[2]]
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a duration such as 24h nor a time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def check_folder(folder: Path | None) -> Path:
    """Returns the log's folder.

    Raises:
        LifecycleError: it is not given, or is no folder.
    """
    if folder is None or not folder.is_dir():
        where = "--folder or SERVING_LOG_PREDICTIONS" if folder is None else f"{folder} is no folder"
        raise LifecycleError(f"no prediction log: {where}; name the folder that the service logs to")
    return folder


@contextlib.contextmanager
def explaining(folder: Path) -> Iterator[None]:
    """Turns errors of reading into one line.

    Raises:
        LifecycleError: the log cannot be read.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise LifecycleError(
            f"the prediction log {folder} cannot be read: {' '.join(str(error).split())}"
        ) from None


def read_rows_of_log(
    folder: Path,
    *,
    model: str | None = None,
    version: str | None = None,
    period: Period = ALWAYS,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Returns the rows in the order of their times, with the columns `model` and `version` first.

    Args: as `read_tables`; the column `date` can be named, too.

    Raises:
        LifecycleError: the log cannot be read.
    """
    wants_date = columns is not None and DATE in columns
    wanted = list(dict.fromkeys([*columns, "time"])) if columns is not None and wants_date else columns
    with explaining(folder):
        table = read_log(folder, model=model, version=version, period=period, columns=wanted)
    if wants_date and table.num_rows:
        table = table.append_column(DATE, pc.strftime(table["time"], format="%Y-%m-%d"))
    return table
