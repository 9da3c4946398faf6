"""Promotes a version: validates it, moves the alias, waits until services answer with it, and watches them.

    python scripts/promote.py 7 --url http://localhost:3000 --watch 60
    python scripts/promote.py 7 --data recent.csv --target churn --min accuracy=0.8 --url http://localhost:3000
    python scripts/promote.py 7 --percent 5,25,50,100 --interval 300 --url http://localhost:3000

Where services do not answer with it in time, or requests fail more often or take longer than before, the alias is
put back. With --percent the version is the challenger first, and gets that much of the requests, step by step. With
--stage a legacy stage is moved instead of the alias.
Exit code 0 when the version is in production, 1 when it is not (any more), 2 with one line on stderr when nothing
was done, 130 after Ctrl-C, with everything put back.
"""

import argparse
import functools
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError  # noqa: E402  # needs the line above
from scripts.lifecycle.command import DONE, FAILED, add_move_options, make_parser, open_model, run  # noqa: E402
from scripts.lifecycle.guard import MIN_REQUESTS, Counts, Limits, find_worsening, read_counts  # noqa: E402  # the same
from scripts.lifecycle.registry import RegisteredModel  # noqa: E402  # the same
from scripts.lifecycle.results import Results  # noqa: E402  # the same
from scripts.lifecycle.services import Seen, add_url_options, read_metrics, wait_for, wait_for_version  # noqa: E402
from scripts.validate import add_check_options, validate  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

LOOK_SECONDS = 1.0
"""Between two looks at the services' metrics."""


class TakenBack(Exception):
    """The version does worse, or is not taken; says why."""


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__ or "", settings)
    parser.add_argument("version", help="the version to promote")
    add_check_options(parser, required=False)
    add_move_options(parser)
    add_url_options(parser)
    parser.add_argument(
        "--watch", type=float, default=0, metavar="SECONDS", help="look at the services for so long"
    )
    parser.add_argument(
        "--percent", type=parse_percents, metavar="5,25,100", help="of the requests, step by step"
    )
    parser.add_argument(
        "--interval", type=float, default=60, metavar="SECONDS", help="of each step (%(default)g)"
    )
    parser.add_argument(
        "--challenger-alias",
        default=settings.challenger_alias or "challenger",
        help="the alias that the services take a challenger from (%(default)s)",
    )
    parser.add_argument(
        "--max-error-increase", type=float, default=0.01, metavar="PART", help="of all requests (%(default)g)"
    )
    parser.add_argument(
        "--max-latency-ratio", type=float, default=2, metavar="TIMES", help="of the mean before (%(default)g)"
    )
    options = parser.parse_args(arguments)
    if (options.watch or options.percent) and not options.url:
        parser.error("--watch and --percent need --url, the services to look at")
    if (options.data is None) != (options.target is None):
        parser.error("--data and --target go together")
    return options


def parse_percents(text: str) -> list[float]:
    """Returns rising percents, the last of them 100.

    Raises:
        argparse.ArgumentTypeError: they are not that.
    """
    try:
        percents = [float(part) for part in text.split(",")]
    except ValueError:
        percents = []
    rises = all(0 < a < b for a, b in itertools.pairwise(percents))
    if not percents or not rises or not 0 < percents[0] <= percents[-1] == 100:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of rising percents up to 100, such as 5,25,50,100"
        )
    return percents


def promote(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Does it; returns exit code, facts and sentences.

    Raises:
        LifecycleError: nothing was done.
    """
    model = open_model(options, settings)
    model.check_version(options.version)
    where = model.where
    before = model.current
    facts: dict[str, Any] = {
        "model": model.name,
        model.selector.kind: model.selector.name,
        "from": before,
        "to": options.version,
    }
    sentences: list[str] = []
    results = None
    if options.data is not None:
        code, found, said = validate(options, settings)
        facts["validation"] = found
        sentences += said
        results = msgspec.convert(found, Results)
        if code != DONE:
            return FAILED, facts | {"done": False}, [*sentences, f"{where} stays at version {before}"]
    if before == options.version:
        return DONE, facts | {"done": False}, [*sentences, f"{where} is version {options.version} already"]
    if options.dry_run:
        plan = f"{where} would go from version {before} to {options.version}"
        return DONE, facts | {"done": False}, [*sentences, plan]
    promotion = Promotion(model, options, sentences.append)
    try:
        promotion.carry_out(results)
    except TakenBack as reason:
        return FAILED, facts | {"done": False, "why": str(reason)}, sentences
    return DONE, facts | {"done": True}, sentences


class Promotion:
    """One promotion, which puts back what it has changed unless it succeeds."""

    def __init__(
        self, model: RegisteredModel, options: argparse.Namespace, say: Callable[[str], None]
    ) -> None:
        self._model = model
        self._options = options
        self._say = say
        self._version: str = options.version
        self._before = model.current
        self._limits = Limits(options.max_error_increase, options.max_latency_ratio)

    def carry_out(self, results: Results | None) -> None:
        """Does it.

        Raises:
            TakenBack: it did not succeed, and all is as it was.
            LifecycleError: the registry refuses.
            KeyboardInterrupt: all is as it was.
        """
        if not self._options.percent:
            self._move(results)
            return
        alias = self._options.challenger_alias
        try:
            self._in_steps(self._options.percent)
            self._move(results)
        except (TakenBack, LifecycleError, KeyboardInterrupt):
            self._model.unset_challenger(alias)
            self._say(f"version {self._version} is no challenger any more")
            raise
        self._model.unset_challenger(alias)

    def _move(self, results: Results | None) -> None:
        where = self._model.where
        old = self._counts(self._before)
        new = self._counts(self._version)
        self._model.move("promote", self._version, self._options.why, self._options.audit_log, results)
        self._say(f"{where} went from version {self._before} to {self._version}")
        try:
            self._wait(wait_for_version(self._options.url, self._version, self._options.timeout))
            self._watch(self._options.watch, lambda: old, functools.partial(self._since, new))
        except (TakenBack, KeyboardInterrupt) as reason:
            why = str(reason) or "broken off"
            self._model.take_back(self._before, why, self._options.audit_log)
            self._say(f"{where} was put back to version {self._before}: {why}")
            raise
        if self._options.url:
            self._say(f"all {len(self._options.url)} service(s) answer with version {self._version}")

    def _in_steps(self, percents: list[float]) -> None:
        for percent in percents:
            self._model.set_challenger(self._options.challenger_alias, self._version, percent)

            def lacks(seen: Seen, percent: float = percent) -> str:
                if seen.versions.get("challenger") != self._version:
                    return seen.trouble or f"version {self._version} is not the challenger"
                return "" if seen.percents["challenger"] == percent else "the share is another"

            self._wait(wait_for(self._options.url, lacks, self._options.timeout, self._version))
            self._say(f"version {self._version} gets {percent:g} % of the requests")
            old, new = self._counts(self._before), self._counts(self._version)
            self._watch(
                self._options.interval,
                functools.partial(self._beside, old),
                functools.partial(self._since, new),
            )

    def _since(self, start: Counts) -> Counts:
        return self._counts(self._version).since(start)

    def _beside(self, start: Counts) -> Counts:
        """What the other version was asked meanwhile; where that is too little, all that it was ever asked."""
        meanwhile = self._counts(self._before).since(start)
        return meanwhile if meanwhile.requests >= MIN_REQUESTS else start

    def _counts(self, version: str | None) -> Counts:
        return read_counts(read_metrics(self._options.url), version) if version is not None else Counts()

    def _wait(self, late: dict[str, str]) -> None:
        if late:
            raise TakenBack("; ".join(f"{url}: {why}" for url, why in late.items()))

    def _watch(self, seconds: float, before: Callable[[], Counts], after: Callable[[], Counts]) -> None:
        """Looks at the services for so long.

        Raises:
            TakenBack: the version does worse.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
            worse = find_worsening(before(), after(), self._limits)
            if worse is not None:
                raise TakenBack(worse)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        return run("promote.py", promote, parse_arguments, arguments)
    except KeyboardInterrupt:
        print("promote.py: broken off; everything was put back", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
