"""Makes a version the shadow, which gets a copy of production's requests after the answer; or removes the shadow.

    .venv/bin/python scripts/shadow.py 7 --url http://localhost:3000
    .venv/bin/python scripts/shadow.py 7 --percent 20 --why "new features"
    .venv/bin/python scripts/shadow.py --off

Callers never wait for the shadow. model_shadow_disagreements_total counts answers that differ. Services take the shadow
from an alias, if they were started with SERVING_SHADOW_ALIAS. Without --percent they use the tag serving.shadow_percent,
else SERVING_SHADOW_PERCENT; --off removes the tag, too.
Exit code 0 if done, 1 if services of --url do not follow in time or refuse the version, or if the move could not be
recorded, 2 with one line on stderr if nothing was done.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError, NotRecorded  # noqa: E402  # needs the line above
from scripts.lifecycle.cli import DONE, FAILED, add_move_options, make_parser, open_model, run, teller  # noqa: E402
from scripts.lifecycle.moves import Selector, check_appendable  # noqa: E402  # the same
from scripts.lifecycle.permissions import check_may_remove_aliases  # noqa: E402  # the same
from scripts.lifecycle.placement import name_of  # noqa: E402  # the same
from scripts.lifecycle.polling import known_refusals, lacks_shadow, wait_for  # noqa: E402  # the same
from scripts.lifecycle.registry import RegisteredModel  # noqa: E402  # the same
from scripts.lifecycle.services import (  # noqa: E402  # the same
    add_url_options,
    check_followed,
    check_services,
    count_answering,
    tell_answering,
)
from scripts.lifecycle.signals import undisturbed  # noqa: E402  # the same
from serving.prepare.registry.resolution import SHADOW_PERCENT_TAG  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__ or "", settings)
    parser.add_argument("version", nargs="?", help="version to make the shadow")
    parser.add_argument("--off", action="store_true", help="remove the shadow")
    parser.add_argument("--percent", type=parse_percent, metavar="PERCENT", help="share of the requests")
    parser.add_argument(
        "--shadow-alias",
        default=settings.shadow_alias or "shadow",
        help="alias of the shadow, which services follow (%(default)s)",
    )
    add_move_options(parser)
    add_url_options(parser)
    options = parser.parse_args(arguments)
    if (options.version is None) is not options.off:
        parser.error("give either a version or --off")
    if options.off and options.percent is not None:
        parser.error("--percent goes with a version, not with --off")
    return options


def parse_percent(text: str) -> float:
    """Returns the share.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        percent = float(text)
    except ValueError:
        percent = -1
    if not 0 < percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to 100")
    return percent


def set_shadow(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Sets or removes the shadow; returns exit code, facts and sentences.

    Raises:
        LifecycleError: nothing was done.
    """
    production = open_model(options, settings)
    model = RegisteredModel(settings, production.name, Selector("alias", options.shadow_alias))
    target, before = options.version, model.aliases.get(options.shadow_alias)
    if target is not None:
        model.check_version(target)
        if target == production.current:
            raise LifecycleError(
                f"version {target} is in production ({production.where}); the shadow must be another one"
            )
    check_services(options.url, model.name)
    check_followed(options.url, "shadow", options.shadow_alias)
    facts = {"model": model.name, "alias": options.shadow_alias, "from": before, "to": target}
    facts["percent"] = options.percent
    if options.dry_run:
        return (
            DONE,
            facts | {"done": False},
            [f"{model.where} would go from {name_of(before)} to {name_of(target)}"],
        )
    check_appendable(options.audit_log)
    if options.off:
        check_may_remove_aliases(production)  # before the share goes
    known = known_refusals(options.url)
    trouble = ""
    say = teller(options)
    try:
        with undisturbed():  # a move is made and recorded, or not made
            set_percent(model, options)
            if target is None:
                model.remove("shadow", options.why, options.audit_log)
            elif target != before:
                model.move("shadow", target, options.why, options.audit_log)
    except NotRecorded as error:
        trouble = str(error)
    now = f"version {target}" if target else "not set"
    share = f", with {options.percent:g} % of the requests" if options.percent is not None else ""
    say(f"{model.where} is {now}{' already' if target and target == before else ''}{share}")
    lacks = lacks_shadow(target, options.percent)
    late = wait_for(options.url, lacks, options.timeout, target or "", known=known, say=say)
    sentences = [trouble] if trouble else []
    sentences += [f"{url} has not followed: {why}" for url, why in late.items()]
    if options.url and not late:
        what = (
            (f"has version {target} as shadow", f"have version {target} as shadow")
            if target
            else ("has no shadow", "have no shadow")
        )
        sentences += tell_answering(count_answering(options.url, target, "shadow"), what)
    facts |= {"done": True, "late": late} | ({"why": trouble} if trouble else {})
    return FAILED if late or trouble else DONE, facts, sentences


def set_percent(model: RegisteredModel, options: argparse.Namespace) -> None:
    """Writes the share to the registry, or removes it with the shadow.

    Raises:
        LifecycleError: the registry refuses.
    """
    with model.asking("the share could not be set") as client:
        if options.percent is not None:
            # The exact number: it is compared with that of the services.
            client.set_registered_model_tag(model.name, SHADOW_PERCENT_TAG, repr(options.percent))
        elif options.off and SHADOW_PERCENT_TAG in model.tags:
            client.delete_registered_model_tag(model.name, SHADOW_PERCENT_TAG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("shadow.py", set_shadow, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
