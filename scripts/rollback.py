"""Moves the alias back to the version before, or to another one, and records it.

    .venv/bin/python scripts/rollback.py --why "wrong prices"      # what the current version replaced
    .venv/bin/python scripts/rollback.py --to 3
    .venv/bin/python scripts/rollback.py --to 3 --only-from 4      # nothing if somebody else has moved it already
    .venv/bin/python scripts/rollback.py --stage Production
    .venv/bin/python scripts/rollback.py --challenger              # ends it: its alias and its share

It needs only the registry, so it works while services are down. Services follow by themselves.
Exit code 0 if done, 1 if services of --url do not follow in time, if the move could not be recorded, or if somebody else
moved the alias at the same time, 2 with one line on stderr if nothing was done.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError, NotRecorded  # noqa: E402  # needs the line above
from scripts.lifecycle.challenger import end_challenger  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, FAILED, add_move_options, make_parser, open_model, run, teller  # noqa: E402
from scripts.lifecycle.moves import Selector, previous_version  # noqa: E402  # the same
from scripts.lifecycle.placement import name_of  # noqa: E402  # the same
from scripts.lifecycle.polling import has_challenger, known_refusals, wait_for, wait_for_version  # noqa: E402  # the same
from scripts.lifecycle.registry import RegisteredModel  # noqa: E402  # the same
from scripts.lifecycle.services import add_url_options, answering_with, count_answering, tell_answering  # noqa: E402  # the same
from scripts.lifecycle.signals import undisturbed  # noqa: E402  # the same
from serving.prepare.registry.resolution import CHALLENGER_PERCENT_TAG  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__ or "", settings)
    parser.add_argument("--to", metavar="VERSION", help="target version (default: the one before)")
    parser.add_argument(
        "--only-from", metavar="VERSION", help="do nothing unless this is the current version"
    )
    parser.add_argument(
        "--challenger",
        nargs="?",
        const=settings.challenger_alias or "challenger",
        metavar="ALIAS",
        help="remove the challenger instead, its alias (%(const)s) and its share",
    )
    add_move_options(parser)
    add_url_options(parser)
    options = parser.parse_args(arguments)
    if options.challenger and (options.to or options.only_from or options.alias or options.stage):
        parser.error("--challenger goes without --to, --only-from, --alias and --stage")
    return options


def roll_back(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Rolls back; returns exit code, facts and sentences.

    Raises:
        LifecycleError: there is nothing to roll back to.
    """
    if options.challenger:
        return remove_challenger(options, settings)
    model = open_model(options, settings)
    where = model.where
    if model.current is None:
        raise LifecycleError(f"{where} is not set; there is nothing to roll back")
    if options.only_from not in {None, model.current}:
        raise LifecycleError(f"{where} is version {model.current}, not {options.only_from}; left unchanged")
    target = options.to or previous_version(model.moves, model.selector, model.current)
    if target is None:
        raise LifecycleError(
            f"there is no record of the version that version {model.current} of {model.name!r} replaced; name one with --to"
        )
    model.check_version(target)
    facts: dict[str, Any] = {
        "model": model.name,
        model.selector.kind: model.selector.name,
        "from": model.current,
        "to": target,
    }
    if target == model.current:
        return DONE, facts | {"done": False}, [f"{where} is version {target} already"]
    if options.dry_run:
        return DONE, facts | {"done": False}, [f"{where} would go from version {model.current} to {target}"]
    before, say, trouble = model.current, teller(options), ""
    try:
        with undisturbed():  # a move is made and recorded, or not made
            model.move("rollback", target, options.why, options.audit_log)
    except NotRecorded as error:
        trouble = str(error)
    say(f"{where} went back from version {before} to {target}")
    # Services are polled only now: one that hangs must not delay a rollback.
    known = known_refusals(options.url)
    late = wait_for_version(options.url, target, options.timeout, known=known, say=say)
    sentences = [trouble] if trouble else []
    sentences += [f"{url} does not answer with version {target}: {why}" for url, why in late.items()]
    answering = {} if late else count_answering(options.url, target)
    sentences += tell_answering(answering, answering_with(target))
    facts |= {"done": True, "late": late} | ({"why": trouble} if trouble else {})
    facts["answering"] = {url: one._asdict() for url, one in answering.items()}
    return FAILED if late or trouble else DONE, facts, sentences


def remove_challenger(
    options: argparse.Namespace, settings: Settings
) -> tuple[int, dict[str, Any], list[str]]:
    """Removes the challenger; returns what `roll_back` does.

    Raises:
        LifecycleError: nothing was done.
    """
    model = RegisteredModel(settings, options.name, Selector("alias", options.challenger))
    before, where = model.current, model.where
    facts: dict[str, Any] = {"model": model.name, "alias": options.challenger, "from": before, "to": None}
    if before is None and CHALLENGER_PERCENT_TAG not in model.tags:
        return DONE, facts | {"done": False}, [f"{where} is not set"]
    if options.dry_run:
        return DONE, facts | {"done": False}, [f"{where} would be removed ({name_of(before)})"]
    say, trouble = teller(options), ""
    try:
        with undisturbed():
            end_challenger(model, options.why, options.audit_log)
    except NotRecorded as error:
        trouble = str(error)
    say(f"{where} was removed ({name_of(before)})")
    late = wait_for(options.url, has_challenger, options.timeout, "", say=say)
    sentences = [trouble] if trouble else []
    sentences += [f"{url} has not followed: {why}" for url, why in late.items()]
    facts |= {"done": True, "late": late} | ({"why": trouble} if trouble else {})
    return FAILED if late or trouble else DONE, facts, sentences


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("rollback.py", roll_back, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
