"""The command lines of the scripts: what they have in common."""

import argparse
import contextlib
import json
import os
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
"""Exit codes: as asked; the alias or stage is not where it was to be, or the services do not follow; nothing was done."""


ACTIVE_STAGES = ("Production", "Staging")
"""What is in none of them, MLflow calls archived."""


class OneLineParser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Raises what `run` prints."""
        raise LifecycleError(f"{message} (--help lists the options)")


def make_parser(description: str, settings: Settings) -> OneLineParser:
    """Returns a parser with the options that every script has; the environment's settings are the defaults."""
    parser = OneLineParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--name", default=settings.model_name, help="the registered model (%(default)s)")
    selector = parser.add_mutually_exclusive_group()
    selector.add_argument("--alias", help=f"the alias that services follow ({settings.model_alias})")
    selector.add_argument(
        "--stage",
        help=f"the legacy stage that services follow, instead ({settings.model_stage or 'none'}); the version that "
        "another one replaces there is archived",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    return parser


def add_move_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the scripts that move the alias or the stage."""
    parser.add_argument("--why", default="", help="the reason, for the record")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--audit-log",
        type=Path,
        default=Path("audit.jsonl"),
        help="a line is added for each move (%(default)s)",
    )


def run(
    script: str,
    main: Callable[[argparse.Namespace, Settings], tuple[int, dict[str, Any], list[str]]],
    parse: Callable[[Sequence[str] | None, Settings], argparse.Namespace],
    arguments: Sequence[str] | None,
) -> int:
    """Runs a script: prints its sentences or its JSON; returns the exit code.

    Args:
        script: its name, before its mistakes.
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
        # Nobody reads it any more, and how it ended is told by the exit code, which Python would change at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def settle(
    script: str, carry_out: Callable[[], None], facts: dict[str, Any], outcome: Callable[[], str]
) -> tuple[int, dict[str, Any], list[str]]:
    """Moves something that is put back where that fails; returns what `main` of `run` does.

    Args:
        script: its name, before what it says on stderr.
        carry_out: does it.
        facts: known of it.
        outcome: says how things are, once it has ended.

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
    """Returns what prints a sentence at once; nothing where JSON is wanted."""

    def say(sentence: str) -> None:
        # That nobody reads it any more must not keep a version from being put back.
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
    """Returns the alias or the stage that the options name, else the one that services follow by their settings.

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
