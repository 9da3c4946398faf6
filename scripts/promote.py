"""Promotes a version: validates it, moves the alias, waits until services answer with it, and watches them.

    .venv/bin/python scripts/promote.py 7 --url http://localhost:3000 --watch 60
    .venv/bin/python scripts/promote.py 7 --data recent.csv --target churn --min accuracy=0.8 --url http://localhost:3000
    .venv/bin/python scripts/promote.py 7 --percent 5,25,50,100 --interval 300 --url http://localhost:3000
    .venv/bin/python scripts/promote.py 7 --when-better accuracy --max-wait 604800 --url http://localhost:3000
    .venv/bin/python scripts/promote.py 7 --force          # callers know that some of their requests will be rejected
    .venv/bin/python scripts/promote.py 7 --watch 600 --url http://model.example --prometheus http://prometheus.example:9090

It rolls back if services do not answer with the version in time, if more requests fail, or if they take longer than
before. With --percent the version is the challenger first, and its share of requests grows step by step; a step with
too few requests is extended. With --stage it moves a legacy stage instead of the alias. With --prometheus it judges all
services that this Prometheus scrapes, and rolls back if it stops answering. With --when-better, the version is
challenger or shadow, and is promoted once the truths that services got at POST /v1/feedback show that it is better.
With --percent too, it becomes the challenger first, and keeps the last share, below 100, until the verdict.
Exit code 0 if the version is in production, 1 if not, 2 if nothing was done, 130 after Ctrl-C and 143 after SIGTERM,
rolled back. If the rollback fails, or somebody else has moved the alias meanwhile, stderr says so and the exit code is
1.
"""

import argparse
import difflib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError  # noqa: E402  # needs the line above
from scripts.lifecycle.cli import (  # noqa: E402  # the same
    DONE,
    FAILED,
    add_move_options,
    make_parser,
    open_model,
    parse_confidence,
    run,
    settle,
    teller,
)
from scripts.lifecycle.compatibility import check_requests, force  # noqa: E402  # the same
from scripts.lifecycle.counters import ServiceCounts  # noqa: E402  # the same
from scripts.lifecycle.guard import MIN_REQUESTS, Limits  # noqa: E402  # the same
from scripts.lifecycle.permissions import check_may_remove_aliases  # noqa: E402  # the same
from scripts.lifecycle.placement import name_of  # noqa: E402  # the same
from scripts.lifecycle.polling import describe_late, known_refusals, wait_for_version  # noqa: E402  # the same
from scripts.lifecycle.prometheus import PrometheusCounts  # noqa: E402  # the same
from scripts.lifecycle.promotion import Promotion  # noqa: E402  # the same
from scripts.lifecycle.quality import check_feedback, find_roles  # noqa: E402  # the same
from scripts.lifecycle.registry import RegisteredModel  # noqa: E402  # the same
from scripts.lifecycle.semantic_versions import add_semantic_option  # noqa: E402  # the same
from scripts.lifecycle.services import (  # noqa: E402  # the same
    add_url_options,
    check_followed,
    check_services,
    http_url,
)
from scripts.lifecycle.validation_record import Results  # noqa: E402  # the same
from scripts.validate import add_check_options, validate  # noqa: E402  # the same
from serving.monitoring.quality.judgement import DEFAULT_CONFIDENCE, METRICS  # noqa: E402  # the same
from serving.prepare.registry.resolution import AUTOPILOT_TAG  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__ or "", settings)
    parser.add_argument("version", help="the version to promote")
    add_check_options(parser, required=False)
    add_move_options(parser)
    add_semantic_option(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="promote a version that rejects requests that services answer now; sets its tag serving.force=true",
    )
    add_url_options(parser)
    parser.add_argument(
        "--watch", type=float, default=0, metavar="SECONDS", help="time to watch the services (0)"
    )
    parser.add_argument(
        "--percent", type=parse_percents, metavar="5,25,100", help="shares of the requests, step by step"
    )
    parser.add_argument(
        "--interval", type=float, default=60, metavar="SECONDS", help="length of a step (%(default)g)"
    )
    parser.add_argument(
        "--max-wait",
        type=float,
        default=3600,
        metavar="SECONDS",
        help=f"time to extend a step for {MIN_REQUESTS} requests, or to wait for --when-better; then roll back "
        "(%(default)g)",
    )
    parser.add_argument(
        "--when-better",
        choices=METRICS,
        metavar="METRIC",
        help=f"wait until this metric is better than in production: {', '.join(METRICS)}",
    )
    parser.add_argument(
        "--confidence",
        type=parse_confidence,
        help=f"probability that no verdict at any look is wrong ({DEFAULT_CONFIDENCE})",
    )
    parser.add_argument(
        "--challenger-alias",
        default=settings.challenger_alias or "challenger",
        help="alias of the services' challenger (%(default)s)",
    )
    parser.add_argument(
        "--max-error-increase",
        type=float,
        default=0.01,
        metavar="FRACTION",
        help="maximum rise in error rate (%(default)g)",
    )
    parser.add_argument(
        "--max-latency-ratio",
        type=float,
        default=2,
        metavar="FACTOR",
        help="maximum latency relative to the mean before (%(default)g)",
    )
    parser.add_argument(
        "--prometheus",
        type=http_url,
        metavar="URL",
        help="count requests at this Prometheus, not at the services of --url",
    )
    parser.add_argument(
        "--prometheus-selector",
        default="",
        metavar="MATCHERS",
        help="label matchers of the services' series, such as 'namespace=\"prod\"'",
    )
    options = parser.parse_args(arguments)
    if (options.watch or options.percent or options.when_better) and not options.url:
        parser.error("--watch, --percent and --when-better need --url, the services to look at")
    if options.confidence is not None and not options.when_better:
        parser.error("--confidence needs --when-better")
    options.confidence = options.confidence or DEFAULT_CONFIDENCE
    if options.percent and (options.percent[-1] == 100) == bool(options.when_better):
        parser.error(
            "with --when-better, --percent ends below 100, such as 5,20: production needs requests to compare with"
            if options.when_better
            else "--percent ends with 100, such as 5,25,50,100; below, it needs --when-better"
        )
    if options.prometheus and not (options.watch or options.percent):
        parser.error("--prometheus needs --watch or --percent, which query it")
    if options.prometheus_selector and not options.prometheus:
        parser.error("--prometheus-selector needs --prometheus")
    if (options.data is None) != (options.target is None):
        parser.error("--data and --target go together")
    if options.data is None and (options.min or options.max or options.max_drop or options.by):
        parser.error("--min, --max, --max-drop and --by need --data and --target, rows with right answers")
    return options


def parse_percents(text: str) -> list[float]:
    """Returns rising percents up to 100.

    Raises:
        argparse.ArgumentTypeError: they are not.
    """
    try:
        percents = [float(part) for part in text.split(",")]
    except ValueError:
        percents = []
    rises = all(0 < a < b for a, b in itertools.pairwise(percents))
    if not percents or not rises or not 0 < percents[0] <= percents[-1] <= 100:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of rising percents up to 100, such as 5,25,50,100"
        )
    return percents


def promote(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Promotes the version; returns exit code, facts and sentences.

    Raises:
        LifecycleError: nothing was done.
    """
    model = open_model(options, settings)
    model.check_version(options.version)
    if not options.force:
        check_requests(model, options.version)
    check_services(options.url, model.name)
    where = model.where
    before = model.current
    facts: dict[str, Any] = {
        "model": model.name,
        model.selector.kind: model.selector.name,
        "from": before,
        "to": options.version,
    }
    say = teller(options)
    results = None
    if options.data is not None:
        code, found, said = validate(options, settings)
        facts["validation"] = found
        for sentence in said:
            say(sentence)
        results = msgspec.convert(found, Results)
        if code != DONE:
            return FAILED, facts | {"done": False}, [f"{where} stays at {name_of(before)}"]
    model.check_wish(options.version, options.semantic_version)
    is_there = before == options.version
    already = f"{where} is version {options.version} already"
    if (options.percent or options.when_better) and not is_there:
        check_steps(options, model)
    if options.dry_run:
        plan = f"{where} would go from {name_of(before)} to {options.version}{hint_of(model)}"
        return DONE, facts | {"done": False}, [already if is_there else plan]
    if hint := hint_of(model):
        say(f"{where} is new{hint}")
    known = known_refusals(options.url)  # before the tag, which clears them
    if options.force:
        with model.asking(f"version {options.version} could not be tagged") as client:
            force(client, model.name, options.version)
    if is_there:
        say(already)
        late = wait_for_version(options.url, options.version, options.timeout, known=known, say=say)
        if late:
            why = describe_late(late)
            return FAILED, facts | {"done": False, "why": why}, [why]
        return DONE, facts | {"done": False}, call_version(model, options)
    counts = (
        PrometheusCounts(options.prometheus, model.name, options.prometheus_selector)
        if options.prometheus
        else ServiceCounts(options.url)
    )
    limits = Limits(options.max_error_increase, options.max_latency_ratio)
    promotion = Promotion(model, options, counts, limits, say, known=known)

    def carry_out() -> None:
        promotion.carry_out(results)
        if promotion.judgement is not None:
            facts["quality"] = promotion.judgement.facts
        facts["answering"] = {url: one._asdict() for url, one in promotion.answering.items()}

    code, facts, said = settle("promote.py", carry_out, facts, lambda: promotion.outcome)
    return code, facts, said + (call_version(model, options) if code == DONE else [])


def check_steps(options: argparse.Namespace, model: RegisteredModel) -> None:
    """Checks, before anything is changed, that services can judge the version before it is in production.

    Raises:
        LifecycleError: they cannot, or the autopilot does.
    """
    if model.tags.get(AUTOPILOT_TAG, "false").lower() != "false":
        raise LifecycleError(
            f"the autopilot moves {model.where} (tag {AUTOPILOT_TAG} of {model.name!r}); remove the tag, or promote "
            "without --percent and --when-better"
        )
    if options.percent:
        check_followed(options.url, "challenger", options.challenger_alias)
        check_may_remove_aliases(model)
    if options.when_better:
        if model.current is None:
            raise LifecycleError(f"{model.where} is not set; --when-better needs a version to compare with")
        check_feedback(options.url)
        if not options.percent:
            find_roles(options.url, options.version)


def hint_of(model: RegisteredModel) -> str:
    """Returns the alias that was probably meant, if the one to move is not set; empty if none is near."""
    if model.selector.kind == "stage" or model.selector.name in model.aliases:
        return ""
    near = difflib.get_close_matches(model.selector.name, model.aliases, 1)
    return f" (no version has this alias; did you mean {near[0]!r}?)" if near else ""


def call_version(model: RegisteredModel, options: argparse.Namespace) -> list[str]:
    """Gives the version in production a semantic version if it has none, or another is wished for; returns what was given."""
    try:
        called = model.call(options.version, options.semantic_version)
    except LifecycleError as error:  # the promotion itself is done
        called = str(error)
    return [called] if called else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("promote.py", promote, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
