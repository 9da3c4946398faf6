"""Prints who moved the alias or the legacy stage when, from which version to which, and why.

    .venv/bin/python scripts/history.py
    .venv/bin/python scripts/history.py --json

A reason is cut to the terminal's width; --json has all of it.
Exit code 0; 2 with one line on stderr if the registry cannot be read.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle.cli import DONE, align, make_parser, open_model, run  # noqa: E402  # needs the line above
from scripts.lifecycle.moves import Move  # noqa: E402  # the same
from scripts.lifecycle.semantic_versions import SemanticVersion  # noqa: E402  # the same
from scripts.lifecycle.validation_record import Results  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

MIN_WHY_CHARACTERS = 24
"""Minimum width of a reason, however narrow the terminal is."""

PIPED_WIDTH = 160
"""Width of a line without a terminal."""

HEAD = ("when (UTC)", "what", "from", "to", "who", "validated with", "why")


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    return make_parser(__doc__ or "", settings).parse_args(arguments)


def tell(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Returns exit code, facts and sentences."""
    model = open_model(options, settings)
    moves = [move for move in model.moves if move.selector == model.selector]
    facts = {
        "model": model.name,
        model.selector.kind: model.selector.name,
        "current": model.current,
        "semantic_versions": {number: str(name) for number, name in model.semantic_versions.items()},
        "moves": [msgspec.to_builtins(move) for move in moves],
    }
    names = model.semantic_versions
    current = f"version {to_name(model.current, names)}" if model.current else "not set"
    lines = [f"{model.where}: {current}"]
    width = shutil.get_terminal_size((PIPED_WIDTH, 0)).columns
    return DONE, facts, lines + (to_table(moves, names, width) if moves else ["no move was recorded"])


def to_name(version: str | None, names: Mapping[str, SemanticVersion]) -> str:
    """Returns a version's number with its semantic version, if it has one; a dash for no version."""
    if version is None:
        return "–"
    return f"{version} ({names[version]})" if version in names else version


def to_table(moves: Sequence[Move], names: Mapping[str, SemanticVersion], width: int) -> list[str]:
    """Returns the lines of a table, the last move last; at most `width` wide if reasons can be cut to it."""
    rows = [
        HEAD,
        *(
            (
                move.at[:19].replace("T", " "),
                *(move.kind, to_name(move.source, names), to_name(move.target, names), move.who),
                to_line(move.results),
                move.why,
            )
            for move in moves
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(width - sum(widths[:-1]) - 2 * len(widths[:-1]), MIN_WHY_CHARACTERS)
    return align([(*others, cut(why, room)) for *others, why in rows])


def cut(text: str, n_characters: int) -> str:
    """Returns a text in one line, cut to fit."""
    line = " ".join(text.split())
    return line if len(line) <= n_characters else f"{line[: n_characters - 1]}…"


def to_line(results: Results | str | None) -> str:
    """Returns a validation's result in one line; a dash if there was none."""
    return results.summary if isinstance(results, Results) else results or "–"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("history.py", tell, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
