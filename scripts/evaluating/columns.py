"""Options that name the columns of predictions and truths."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from scripts.lifecycle.cli import parse_confidence
from scripts.training.column_options import add_format_options

DEFAULTS = {
    "label": ("label",),
    "score": ("score",),
    "value": ("value",),
    "version": ("version", "model_version"),
    "role": ("role",),
}
"""Names of columns, as in the prediction log and in the metrics."""

WHAT = {
    "label": "predicted label of a classifier",
    "score": "probability of a binary classifier's second class, or of another one's predicted class",
    "value": "predicted value of a regression",
    "version": "version",
    "role": "role",
}


class Columns(NamedTuple):
    """Names of the columns that a file of predictions has; None for those that it does not have."""

    label: str | None
    score: str | None
    value: str | None
    version: str | None
    role: str | None


def find_columns(names: Iterable[str], options: argparse.Namespace) -> Columns:
    """Returns the columns of the options, else those with the default names.

    Args:
        names: of the file's columns; those in the options must be among them.
        options: those of `add_row_options`.
    """
    there = set(names)
    return Columns(
        *(
            getattr(options, name) or next((default for default in defaults if default in there), None)
            for name, defaults in DEFAULTS.items()
        )
    )


def named_columns(options: argparse.Namespace) -> list[str]:
    """Returns the columns that the options name, which a file of predictions must have."""
    given = [getattr(options, option) for option in DEFAULTS]
    return [name for name in (*given, *options.by, *options.on) if name]


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for truths, and how to join them."""
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="truths (for a prediction log, the feedback in SERVING_FEEDBACK_STORE)",
    )
    parser.add_argument("--target", metavar="COLUMN", help="column of the truth")
    parser.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column that identifies a row; may be repeated (default: request_id and row, else key)",
    )
    add_format_options(parser)


def add_row_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for files and columns; the defaults are the names in the prediction log."""
    add_truth_options(parser)
    parser.add_argument("--name", help="model, if the prediction log has several")
    for name, defaults in DEFAULTS.items():
        parser.add_argument(
            f"--{name}", metavar="COLUMN", help=f"column of the {WHAT[name]} ({' or '.join(defaults)})"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for a verdict about two versions."""
    parser.add_argument(
        "--metric",
        choices=("accuracy", "log_loss", "mae", "mse"),
        help="mean over the rows to compare by (default: accuracy; mae for a regression)",
    )
    parser.add_argument(
        "--confidence",
        type=parse_confidence,
        default=0.95,
        help="probability that no verdict at any look is wrong (%(default)s)",
    )
