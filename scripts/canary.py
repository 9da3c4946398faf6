"""Shifts traffic to a canary, a new image, step by step, and rolls back if it does worse than the stable side.

    .venv/bin/python scripts/canary.py rollout model-server --namespace model-server --prometheus http://prometheus:9090
    .venv/bin/python scripts/canary.py httproute model-server-gateway --namespace model-server --prometheus http://prometheus:9090
    .venv/bin/python scripts/canary.py deployment model-server --namespace model-server --prometheus http://prometheus:9090
    .venv/bin/python scripts/canary.py httproute model-server-gateway --namespace model-server --restore

Each step compares both sides as Prometheus scraped them: failed requests, 95th-percentile latency, and shares of
predicted classes. With too few requests it waits. It rolls back if the canary does worse, if Prometheus or the cluster
stops answering, and on Ctrl-C. The next run resumes a killed one.
For a new version of the model, see promote.py --percent.
Exit code 0 if the canary has all traffic, 1 if not, 2 if nothing was done, 130 after Ctrl-C and 143 after SIGTERM,
rolled back. If the rollback fails, or somebody else has moved the same object meanwhile, stderr says so and the exit
code is 1.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError  # noqa: E402  # needs the line above
from scripts.lifecycle.cli import DONE, FAILED, OneLineParser, run, settle, teller  # noqa: E402  # the same
from scripts.lifecycle.prometheus import Prometheus  # noqa: E402  # the same
from scripts.lifecycle.retry import retry_put_back  # noqa: E402  # the same
from scripts.lifecycle.services import http_url  # noqa: E402  # the same
from scripts.rollout.argo import Rollout  # noqa: E402  # the same
from scripts.rollout.cluster import Cluster  # noqa: E402  # the same
from scripts.rollout.deployments import Deployments  # noqa: E402  # the same
from scripts.rollout.httproute import HTTPRoute  # noqa: E402  # the same
from scripts.rollout.judgement import Limits  # noqa: E402  # the same
from scripts.rollout.measurement import Measure  # noqa: E402  # the same
from scripts.rollout.progression import Canary, Pace  # noqa: E402  # the same
from scripts.rollout.seldon import SeldonDeployment  # noqa: E402  # the same
from scripts.rollout.target import Sides, Target  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

KINDS: dict[str, Callable[[Cluster, str, str | None], Target]] = {
    "rollout": Rollout,
    "httproute": HTTPRoute,
    "seldondeployment": SeldonDeployment,
    "deployment": Deployments,
}

STEPS = (5, 10, 25, 50, 100)


def parse_arguments(arguments: Sequence[str] | None, _: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("kind", choices=KINDS, help="kind of the object that splits the traffic")
    parser.add_argument("name", help="its name; for Deployments, the name of the stable one")
    parser.add_argument("--namespace", required=True, help="namespace of the object")
    parser.add_argument("--context", help="context of the kubeconfig (default: current)")
    parser.add_argument(
        "--canary",
        metavar="NAME",
        help="backend, predictor or Deployment that is the canary (default: the second of two; NAME-canary)",
    )
    parser.add_argument(
        "--prometheus", type=http_url, metavar="URL", help="Prometheus that scrapes both sides"
    )
    for side in Sides._fields:
        parser.add_argument(
            f"--{side}-metrics",
            metavar="MATCHERS",
            help=f"label matchers of the {side} pods (default: those of k8s/)",
        )
    parser.add_argument(
        "--steps",
        type=parse_steps,
        metavar="PERCENTS",
        help=f"traffic shares in percent (default: {','.join(map(str, STEPS))}; a Rollout has its own)",
    )
    parser.add_argument(
        "--step-seconds", type=positive, default=300, metavar="SECONDS", help="length of a step (%(default)g)"
    )
    parser.add_argument(
        "--max-step-seconds",
        type=positive,
        default=3600,
        metavar="SECONDS",
        help="roll back after this time without enough requests (%(default)g)",
    )
    limits = Limits()
    parser.add_argument(
        "--max-error-increase",
        type=part,
        default=limits.error_increase,
        metavar="FRACTION",
        help="maximum rise in error rate (%(default)g)",
    )
    parser.add_argument(
        "--max-latency-ratio",
        type=ratio,
        default=limits.latency_ratio,
        metavar="FACTOR",
        help="maximum latency relative to the stable side (%(default)g)",
    )
    parser.add_argument(
        "--max-class-difference",
        type=part,
        default=limits.class_difference,
        metavar="FRACTION",
        help="maximum difference in the share of a predicted class (%(default)g)",
    )
    parser.add_argument(
        "--min-requests",
        type=int,
        default=limits.requests,
        metavar="N",
        help="requests that each side needs per step (%(default)s)",
    )
    parser.add_argument(
        "--min-rows",
        type=int,
        default=limits.rows,
        metavar="N",
        help="rows with a predicted class that each side needs per step (%(default)s)",
    )
    parser.add_argument("--restore", action="store_true", help="roll back what an earlier run moved")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="read the cluster and Prometheus, print the plan, change nothing",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(arguments)
    if options.prometheus is None and not options.restore:
        parser.error("--prometheus is needed to judge the canary")
    if options.max_step_seconds < options.step_seconds:
        parser.error("--max-step-seconds is less than --step-seconds")
    if options.min_requests < 1 or options.min_rows < 1:
        parser.error("--min-requests and --min-rows are at least 1")
    return options


def parse_steps(text: str) -> tuple[int, ...]:
    """Returns rising whole percents, the last of them 100.

    Raises:
        argparse.ArgumentTypeError: they are not.
    """
    try:
        percents = tuple(int(part) for part in text.split(","))
    except ValueError:
        percents = ()
    if percents != tuple(sorted(set(percents))) or not percents or percents[0] < 1 or percents[-1] != 100:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of rising whole percents up to 100, such as 5,10,25,50,100"
        )
    return percents


def positive(text: str) -> float:
    """Returns a number above 0.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def part(text: str) -> float:
    """Returns a number above 0, up to 1.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    number = positive(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction between 0 and 1, such as 0.05")
    return number


def ratio(text: str) -> float:
    """Returns a number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    number = positive(text)
    if number < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is less than 1: the canary would have to be faster than the stable side"
        )
    return number


def drive(options: argparse.Namespace, _: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Runs the canary; returns exit code, facts and sentences.

    Raises:
        LifecycleError: nothing was done.
    """
    target = KINDS[options.kind](connect(options), options.name, options.canary)
    facts = {"kind": options.kind, "namespace": options.namespace, "name": options.name}
    say = teller(options)
    if options.restore:
        return restore(target, facts, say, is_dry=options.dry_run)
    percents = target.open(options.steps if options.kind == "rollout" else options.steps or STEPS)
    if percents is None:
        return DONE, facts | {"done": False}, [f"{target.title}: the canary has all traffic already"]
    known = target.sides
    sides = Sides(options.stable_metrics or known.stable, options.canary_metrics or known.canary)
    try:
        measure = Measure(Prometheus(options.prometheus), sides)
        measure.check("stable")
        if target.is_present:
            measure.check("canary")
    except LifecycleError as error:
        if not target.is_begun:
            raise
        raise LifecycleError(
            f"{error}; an earlier run left traffic on the canary; --restore rolls it back"
        ) from None
    plan = [
        f"{', '.join(f'{percent} %' for percent in percents) or 'no steps left'}, at least {options.step_seconds:g} s each",
        *target.plan,
        f"compares {{{sides.canary}}} with {{{sides.stable}}}",
    ]
    facts |= {"steps": list(percents), "plan": plan, "metrics": sides._asdict()}
    for sentence in plan:
        say(f"{target.title}: {sentence}")
    if options.dry_run:
        return DONE, facts | {"done": False}, []
    limits = Limits(
        options.max_error_increase,
        options.max_latency_ratio,
        options.max_class_difference,
        options.min_requests,
        options.min_rows,
    )
    pace = Pace(options.step_seconds, options.max_step_seconds)
    canary = Canary(target, measure, limits, pace, say)
    facts["looks"] = canary.steps
    return settle("canary.py", lambda: canary.carry_out(percents), facts, lambda: canary.outcome)


def connect(options: argparse.Namespace) -> Cluster:
    """Returns the cluster; a dry run reads steps, weights and pods from it, too.

    Raises:
        LifecycleError: none is configured.
    """
    try:
        return Cluster(options.namespace, options.context)
    except LifecycleError as error:
        if not options.dry_run:
            raise
        raise LifecycleError(
            f"{str(error).rstrip('.')}; --dry-run changes nothing, but reads its plan from the cluster"
        ) from None


def restore(
    target: Target, facts: dict[str, Any], say: Callable[[str], None], *, is_dry: bool
) -> tuple[int, dict[str, Any], list[str]]:
    """Rolls back what an earlier run moved; returns what `drive` does."""
    # A signal may interrupt it: the next call resumes.
    said = retry_put_back(lambda: target.put_back(is_dry=is_dry), say)
    if not said:
        return FAILED, facts | {"done": False}, [f"{target.title}: no canary has moved it"]
    return DONE, facts | {"done": not is_dry, "why": said}, [f"{target.title}: {said}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("canary.py", drive, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
