"""What the command line says of columns."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from scripts.training import TrainingError

if TYPE_CHECKING:
    from scripts.training.columns import Kind

COLUMN_OPTIONS: "dict[Kind, str]" = {
    "number": "columns that are numbers; cells that are none count as missing",
    "category": "columns that are categories, also of numbers",
    "text": "columns that are texts, learned from by their words",
    "date": "columns that are dates; COLUMN=FORMAT says how they are written, such as day=%%d/%%m/%%Y; cells that are none "
    "count as missing",
    "drop": "columns to leave out",
}


MAX_NAMES = 30
"""Columns that a message lists."""


class Said(NamedTuple):
    """What the user has said of columns."""

    kinds: "Mapping[str, Kind]"
    date_formats: Mapping[str, str]
    """Of dates whose format was given, for `strptime`."""


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each kind of column."""
    for kind, what in COLUMN_OPTIONS.items():
        parser.add_argument(f"--{kind}", nargs="+", action="extend", default=[], metavar="COLUMN", help=what)


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how a CSV file is written."""
    parser.add_argument(
        "--sep",
        type=parse_separator,
        help="what separates the file's columns, such as ';' or tab; else found",
    )
    parser.add_argument(
        "--decimal",
        choices=(".", ","),
        metavar="MARK",
        help="the mark before decimals, '.' or ','; else found",
    )


def parse_separator(text: str) -> str:
    """Returns the character that an option names.

    Raises:
        argparse.ArgumentTypeError: it names none.
    """
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character, or the word tab")
    return text


def said_kinds(options: argparse.Namespace) -> Said:
    """Returns what the options say of columns.

    Raises:
        TrainingError: they say two things of one.
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
    """Returns what there is to say of a name that no column has: the column that may be meant, and which there are."""
    columns = list(map(str, labels))
    folded = {column.casefold(): column for column in columns}
    near = difflib.get_close_matches(name.casefold(), folded, 1)
    hint = f" (did you mean {folded[near[0]]!r}?)" if near else ""
    more = f", and {len(columns) - MAX_NAMES} more" if len(columns) > MAX_NAMES else ""
    return f"no column {name!r}{hint}; the columns are: {', '.join(columns[:MAX_NAMES])}{more}"


def check_said(said: Said, columns: Sequence[str], made: Sequence[str], target: str) -> None:
    """Makes sure that options name columns that are there.

    Args:
        said: by the options.
        columns: of the file.
        made: by preprocessing.
        target: that is learned.

    Raises:
        TrainingError: one does not, or names the target.
    """
    for name, kind in said.kinds.items():
        if name not in columns and name not in made:
            raise TrainingError(f"--{kind}: {no_column(name, columns)}")
        if name == target and kind not in {"number", "text"}:
            raise TrainingError(f"--{kind} {name}: that is the target; --task says what it is")
