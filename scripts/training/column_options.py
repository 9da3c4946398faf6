"""Command-line options for columns."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from scripts.training import TrainingError

if TYPE_CHECKING:
    from scripts.training.columns import Kind

COLUMN_OPTIONS: "dict[Kind, str]" = {
    "number": "numeric columns; cells that are not numbers count as missing",
    "category": "columns of categories, which may be numbers",
    "text": "text columns; the model learns from their words",
    "date": "date columns, with a format if needed: COLUMN=FORMAT, such as day=%%d/%%m/%%Y; cells that are not dates "
    "count as missing",
    "drop": "columns to leave out",
}


MAX_NAMES = 30
"""Maximum columns that a message lists."""


class Said(NamedTuple):
    """What the options say about columns."""

    kinds: "Mapping[str, Kind]"
    date_formats: Mapping[str, str]
    """Formats for `strptime`, of the dates that have one in the options."""


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each kind of column."""
    for kind, what in COLUMN_OPTIONS.items():
        parser.add_argument(f"--{kind}", nargs="+", action="extend", default=[], metavar="COLUMN", help=what)


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the format of a CSV file."""
    parser.add_argument(
        "--sep",
        type=parse_separator,
        help="column separator, such as ';' or tab (default: detected)",
    )
    parser.add_argument(
        "--decimal",
        choices=(".", ","),
        metavar="MARK",
        help="decimal mark, '.' or ',' (default: detected)",
    )


def parse_separator(text: str) -> str:
    """Returns the character that an option names.

    Raises:
        argparse.ArgumentTypeError: it is not one character.
    """
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither one character nor the word tab")
    return text


def said_kinds(options: argparse.Namespace) -> Said:
    """Returns what the options say about columns.

    Raises:
        TrainingError: they give a column two kinds.
    """
    kinds: dict[str, Kind] = {}
    formats: dict[str, str] = {}
    for kind in COLUMN_OPTIONS:
        for text in getattr(options, kind):
            name, is_given, form = text.partition("=%") if kind == "date" else (text, "", "")
            if is_given:
                formats[name] = f"%{form}"
            if kinds.setdefault(name, kind) != kind:
                raise TrainingError(f"column {name!r} cannot be both --{kinds[name]} and --{kind}")
    return Said(kinds, formats)


def no_column(name: str, labels: Iterable[object]) -> str:
    """Returns the message for an unknown column: the most similar name, and the existing ones."""
    columns = list(map(str, labels))
    folded = {column.casefold(): column for column in columns}
    near = difflib.get_close_matches(name.casefold(), folded, 1)
    hint = f" (did you mean {folded[near[0]]!r}?)" if near else ""
    more = f", and {len(columns) - MAX_NAMES} more" if len(columns) > MAX_NAMES else ""
    return f"no column {name!r}{hint}; the columns are: {', '.join(columns[:MAX_NAMES])}{more}"


def check_said(said: Said, columns: Sequence[str], made: Sequence[str], target: str) -> None:
    """Checks that the columns in the options exist.

    Args:
        said: what the options say.
        columns: of the file.
        made: columns that preprocessing adds.
        target: the column to predict.

    Raises:
        TrainingError: one does not exist, or is the target.
    """
    for name, kind in said.kinds.items():
        if name not in columns and name not in made:
            raise TrainingError(f"--{kind}: {no_column(name, columns)}")
        if name == target and kind not in {"number", "text"}:
            raise TrainingError(f"--{kind} {name}: that is the target; use --task instead")
