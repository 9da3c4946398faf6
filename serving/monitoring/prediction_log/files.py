"""Where the log's Parquet files are."""

import datetime as dt
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from serving.model.prepared import store_name

PATTERN = "model=*/version=*/date=*/*.parquet"

MAX_NAME = 200
"""Characters of a folder's name, of which file systems allow 255."""


def partition_folder(folder: Path, model: str, version: str, date: dt.date) -> Path:
    """Returns the folder for the rows of a version and a day."""
    name = quote(model, safe=" ")
    if len(name) > MAX_NAME:
        name = store_name(model)
    return folder / f"model={name}" / f"version={quote(version, safe='')}" / f"date={date.isoformat()}"


class LogFile(NamedTuple):
    """A file of the log."""

    path: Path
    model: str
    version: str
    date: str


def find_files(folder: Path) -> list[LogFile]:
    """Returns the files, those of the earliest days first."""
    found = []
    for path in folder.glob(PATTERN):
        model, version, date = (unquote(part.partition("=")[2]) for part in path.parts[-4:-1])
        found.append(LogFile(path, model, version, date))
    return sorted(found, key=lambda file: (file.date, file.path.name))
