"""Command-line code that the scripts share."""

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.moves import Selector
from scripts.lifecycle.registry import RegisteredModel
from scripts.lifecycle.signals import Interrupted, breaking_off
from scripts.lifecycle.watch import RolledBack
from serving.redaction import redact
from serving.settings import Settings, SettingsError, load_settings

DONE, FAILED, IMPOSSIBLE = 0, 1, 2
"""Exit codes: done; the alias or stage is not where it should be, or services do not follow; nothing was done."""


NUMBERS = {"int": "a whole number", "float": "a number"}

ACTIVE_STAGES = ("Production", "Staging")
"""The stages that a version can be promoted to."""


class OneLineParser(argparse.ArgumentParser):
    """Reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises what `run` prints."""
        # argparse names Python's types.
        message = re.sub(
            r"invalid (int|float) value:", lambda found: f"expected {NUMBERS[found[1]]}, got", message
        )
        raise LifecycleError(f"{message} (--help lists the options)")


def make_parser(description: str, settings: Settings) -> OneLineParser:
    """Returns a parser with the options that every script has; the environment's settings are the defaults."""
    parser = OneLineParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--name", default=settings.model_name, help="registered model (%(default)s)")
    selector = parser.add_mutually_exclusive_group()
    selector.add_argument("--alias", help=f"alias that services follow ({settings.model_alias})")
    selector.add_argument(
        "--stage",
        help=f"legacy stage that services follow instead ({settings.model_stage or 'none'}); the version that is "
        "replaced there is archived",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def add_move_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the scripts that move the alias or the stage."""
    parser.add_argument("--why", default="", help="reason, for the record")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
    parser.add_argument(
        "--audit-log",
        type=Path,
        default=Path("audit.jsonl"),
        help="file that gets a line for each move (%(default)s)",
    )


def parse_confidence(text: str) -> float:
    """Returns a confidence.

    Raises:
        argparse.ArgumentTypeError: it is no number from 0.5 to below 1.
    """
    from serving.monitoring.quality.judgement import to_confidence

    try:
        return to_confidence(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number from 0.5 to below 1, such as 0.95"
        ) from None


def run(
    script: str,
    main: Callable[[argparse.Namespace, Settings], tuple[int, dict[str, Any], list[str]]],
    parse: Callable[[Sequence[str] | None, Settings], argparse.Namespace],
    arguments: Sequence[str] | None,
) -> int:
    """Runs a script: prints its sentences or its JSON; returns the exit code.

    Args:
        script: its name, the prefix of its errors.
        main: returns exit code, facts, and the sentences that it has not printed yet.
        parse: reads the command line.
        arguments: of the command line; None takes those of the process.
    """
    try:
        settings = load_settings()
        options = parse(arguments, settings)
        with breaking_off():
            code, facts, sentences = main(options, settings)
    except Interrupted as reason:
        print(f"{script}: {reason}", file=sys.stderr)
        return reason.exit_code
    except (LifecycleError, SettingsError) as error:
        print(f"{script}: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, LifecycleError) else IMPOSSIBLE
    try:
        if options.json:
            print(redact(json.dumps(facts, indent=2)), flush=True)
        elif sentences:
            print(redact("\n".join(sentences)), flush=True)
    except BrokenPipeError:
        # The reader is gone. Python would fail to flush stdout at exit, and change the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def settle(
    script: str, carry_out: Callable[[], None], facts: dict[str, Any], outcome: Callable[[], str]
) -> tuple[int, dict[str, Any], list[str]]:
    """Runs a move that rolls back on failure; returns what `main` of `run` does.

    Args:
        script: its name, the prefix on stderr.
        carry_out: makes the move.
        facts: known before the move.
        outcome: returns the resulting state in words.

    Raises:
        LifecycleError: nothing was done.
    """
    try:
        carry_out()
    except RolledBack as reason:
        return FAILED, facts | {"done": False, "why": str(reason)}, []
    except Interrupted as reason:
        why = f"{reason}; {outcome()}"
        print(redact(f"{script}: {why}"), file=sys.stderr)
        return reason.exit_code, facts | {"done": False, "why": why}, []
    except LifecycleError as error:
        if error.exit_code == IMPOSSIBLE:
            raise
        print(f"{script}: {error}", file=sys.stderr)
        return error.exit_code, facts | {"done": False, "why": str(error)}, []
    return DONE, facts | {"done": True}, []


def teller(options: argparse.Namespace) -> Callable[[str], None]:
    """Returns a function that prints a sentence at once; with --json, it prints nothing."""

    def say(sentence: str) -> None:
        # A closed pipe must not prevent a rollback.
        with contextlib.suppress(OSError):
            if not options.json:
                print(redact(sentence), flush=True)

    return say


def open_model(options: argparse.Namespace, settings: Settings) -> RegisteredModel:
    """Returns the model that the options name.

    Raises:
        LifecycleError: it cannot be found.
    """
    return RegisteredModel(settings, options.name, choose_selector(options, settings))


def choose_selector(options: argparse.Namespace, settings: Settings) -> Selector:
    """Returns the alias or the stage in the options, else the one that services follow by the settings.

    Raises:
        LifecycleError: a version cannot be promoted to that stage.
    """
    stage = options.stage or settings.model_stage
    if options.alias is not None or stage is None:
        return Selector("alias", options.alias or settings.model_alias)
    if stage.capitalize() not in ACTIVE_STAGES:
        raise LifecycleError(f"{stage!r} is not a stage to promote to; there are: {', '.join(ACTIVE_STAGES)}")
    return Selector("stage", stage.capitalize())


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
