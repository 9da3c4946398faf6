"""How a version comes to its users: moved, waited for, watched, and put back where it does worse."""

import argparse
import functools
import time
from collections.abc import Callable

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.counting import CountSource
from scripts.lifecycle.guard import MIN_REQUESTS, Counts, Limits, find_worsening
from scripts.lifecycle.registry import RegisteredModel
from scripts.lifecycle.results import Results
from scripts.lifecycle.services import Seen, wait_for, wait_for_version


class TakenBack(Exception):
    """The version does worse, or is not taken; says why."""


class Promotion:
    """One promotion, which puts back what it has changed unless it succeeds."""

    def __init__(
        self,
        model: RegisteredModel,
        options: argparse.Namespace,
        counts: CountSource,
        limits: Limits,
        say: Callable[[str], None],
    ) -> None:
        self._model = model
        self._options = options
        self._counts = counts
        self._limits = limits
        self._say = say
        self._version: str = options.version
        self._before = model.current

    def carry_out(self, results: Results | None) -> None:
        """Does it.

        Raises:
            TakenBack: it did not succeed, and all is as it was.
            LifecycleError: the registry refuses, or it is not known how the version before does; all is as it was.
            KeyboardInterrupt: all is as it was.
        """
        past = self._counts.past(self._before) if self._before is not None else Counts()
        if not self._options.percent:
            self._move(past, results)
            return
        alias = self._options.challenger_alias
        try:
            for percent in self._options.percent:
                self._step(past, percent)
            self._move(past, results)
        except (TakenBack, LifecycleError, KeyboardInterrupt):
            self._model.unset_challenger(alias)
            self._say(f"version {self._version} is no challenger any more")
            raise
        self._model.unset_challenger(alias)

    def _move(self, past: Counts, results: Results | None) -> None:
        where = self._model.where
        since = self._counts.follow(self._version)
        self._model.move("promote", self._version, self._options.why, self._options.audit_log, results)
        self._say(f"{where} went from version {self._before} to {self._version}")
        try:
            self._wait(wait_for_version(self._options.url, self._version, self._options.timeout))
            self._watch(self._options.watch, lambda: past, since)
        except (TakenBack, KeyboardInterrupt) as reason:
            why = str(reason) or "broken off"
            self._model.take_back(self._before, why, self._options.audit_log)
            self._say(f"{where} was put back to version {self._before}: {why}")
            raise
        if self._options.url:
            self._say(f"all {len(self._options.url)} service(s) answer with version {self._version}")

    def _step(self, past: Counts, percent: float) -> None:
        self._model.set_challenger(self._options.challenger_alias, self._version, percent)

        def lacks(seen: Seen) -> str:
            if seen.versions.get("challenger") != self._version:
                return seen.trouble or f"version {self._version} is not the challenger"
            return "" if seen.percents["challenger"] == percent else "the share is another"

        self._wait(wait_for(self._options.url, lacks, self._options.timeout, self._version))
        self._say(f"version {self._version} gets {percent:g} % of the requests")
        beside = self._counts.follow(self._before) if self._before is not None else Counts
        since = self._counts.follow(self._version)
        self._watch(self._options.interval, functools.partial(_enough_of, beside, past), since)

    def _wait(self, late: dict[str, str]) -> None:
        if late:
            raise TakenBack("; ".join(f"{url}: {why}" for url, why in late.items()))

    def _watch(self, seconds: float, before: Callable[[], Counts], after: Callable[[], Counts]) -> None:
        """Looks at what is counted for so long.

        Raises:
            TakenBack: the version does worse, or it is not known any more how it does.
        """
        end = time.monotonic() + seconds
        seen = None
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(self._counts.look_seconds, left))
            try:
                seen = after()
                worse = find_worsening(before(), seen, self._limits)
            except LifecycleError as error:
                raise TakenBack(str(error)) from None
            if worse is not None:
                raise TakenBack(worse)
        if seen is not None and seen.requests < MIN_REQUESTS:
            self._say(
                f"version {self._version} was seen to get {seen.requests:.0f} requests meanwhile, "
                "too few to say how it does"
            )


def _enough_of(beside: Callable[[], Counts], past: Counts) -> Counts:
    """What the other version was asked meanwhile; where that is too little, what it was asked before."""
    meanwhile = beside()
    return meanwhile if meanwhile.requests >= MIN_REQUESTS else past
