"""Takes a canary from step to step, and rolls back if it does worse."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from scripts.lifecycle import LifecycleError, Overtaken, StillThere
from scripts.lifecycle.prometheus import PrometheusError
from scripts.lifecycle.retry import retry_put_back
from scripts.lifecycle.signals import undisturbed
from scripts.lifecycle.watch import RolledBack
from scripts.rollout.cluster import Unavailable
from scripts.rollout.judgement import Behaviour, Limits, Share, Verdict, judge
from scripts.rollout.measurement import Measure
from scripts.rollout.target import Target, patiently

LOOK_SECONDS = 5.0
TELL_SECONDS = 60.0
"""Interval of the messages while waiting."""

LOST_SECONDS = 60.0
"""How long the cluster and Prometheus may be unreachable, for example while one of them restarts."""


class Pace(NamedTuple):
    """How long a step lasts."""

    step_seconds: float
    """Minimum."""
    max_step_seconds: float
    """Maximum: with too few requests by then, the canary is rolled back."""


class Canary:
    """One run, which rolls back unless it succeeds."""

    def __init__(
        self,
        target: Target,
        measure: Measure,
        limits: Limits,
        pace: Pace,
        say: Callable[[str], None],
    ) -> None:
        """Takes what it needs.

        Args:
            target: what is moved.
            measure: reads the metrics of both sides.
            limits: how much worse the canary may do.
            pace: of the steps.
            say: prints a sentence.
        """
        self._target, self._measure = target, measure
        self._limits, self._pace, self._say = limits, pace, say
        self.outcome = f"{target.title} was not moved"
        """The present state, in words."""
        self.steps: list[dict[str, Any]] = []
        """The result of each step, for JSON."""

    def carry_out(self, percents: Sequence[int]) -> None:
        """Runs the steps.

        Args:
            percents: of the steps, in their order.

        Raises:
            RolledBack: the canary does worse, or its metrics are lost; it was rolled back.
            Overtaken: somebody else has moved it; it is left unchanged.
            StillThere: it could not be rolled back.
            BaseException: any other, such as Ctrl-C; it was rolled back.
        """
        try:
            for percent in percents:
                self._step(percent)
            said = patiently(self._target.finish)
        except Overtaken as error:
            self.outcome = str(error)
            raise
        except BaseException as error:
            why = str(error) or type(error).__name__
            with undisturbed():
                has_changed = self._put_back(why)
            if has_changed and isinstance(error, LifecycleError):
                raise RolledBack(why) from None
            raise
        self.outcome = said
        self._say(said)

    def _step(self, percent: int) -> None:
        self._say(patiently(lambda: self._target.go_to(percent)))
        both = self._follow(is_alone=percent == 100)
        start = told = seen = time.monotonic()
        while True:
            seconds = time.monotonic() - start
            ends = (self._pace.step_seconds, self._pace.max_step_seconds)
            time.sleep(min([LOOK_SECONDS, *(end - seconds for end in ends if end > seconds)]))
            try:
                self._target.check_ours()
                stable, canary = both()
            except (Unavailable, PrometheusError):
                if time.monotonic() - seen > LOST_SECONDS:
                    raise
                continue
            seen = time.monotonic()
            seconds = seen - start
            has_lasted = seconds >= self._pace.step_seconds
            share = Share(percent, has_lasted=has_lasted)
            verdict = judge(stable, canary, self._limits, share)
            if verdict.kind == "break off" or (verdict.kind == "go on" and has_lasted):
                break
            if seconds >= self._pace.max_step_seconds:
                verdict = Verdict("break off", f"after {seconds:.0f} s {verdict.why or 'it goes on'}")
                break
            if verdict.why and seen - told > TELL_SECONDS:
                told = seen
                self._say(f"waiting at {percent} %: {verdict.why}")
        self._note(percent, stable, canary, verdict)
        if verdict.kind == "break off":
            raise RolledBack(verdict.why)

    def _follow(self, *, is_alone: bool) -> Callable[[], tuple[Behaviour, Behaviour]]:
        give_up = time.monotonic() + LOST_SECONDS
        while True:
            try:
                return self._measure.follow(is_alone=is_alone)
            except PrometheusError:
                if time.monotonic() > give_up:
                    raise
            time.sleep(LOOK_SECONDS)

    def _note(self, percent: int, stable: Behaviour, canary: Behaviour, verdict: Verdict) -> None:
        sides = {"canary": canary, "stable": stable}
        self.steps.append(
            {"percent": percent, "verdict": verdict.kind, "why": verdict.why}
            | {name: describe(side) for name, side in sides.items()}
        )
        self._say(f"at {percent} %: " + "; ".join(f"{name} {tell(side)}" for name, side in sides.items()))

    def _put_back(self, why: str) -> bool:
        """Rolls back; returns False if nothing was moved."""
        try:
            said = retry_put_back(self._target.put_back, self._say)
        except Overtaken as error:
            self.outcome = str(error)
            raise
        except LifecycleError as error:
            self.outcome = f"{self._target.title} WAS NOT ROLLED BACK: {self._target.by_hand} ({error}); rollback reason: {why}"
            raise StillThere(self.outcome) from None
        if said:
            self.outcome = f"{self._target.title}: {said}"
            self._say(f"{self.outcome}, because {why}")
        return bool(said)


def describe(side: Behaviour) -> dict[str, Any]:
    """Returns a side's metrics for JSON."""
    return {
        "requests": round(side.requests),
        "error_rate": side.error_rate,
        "p95_seconds": side.latency,
        "rows_by_class": {name: round(rows) for name, rows in sorted(side.classes.items())},
    }


def tell(side: Behaviour) -> str:
    """Returns a side's metrics in words."""
    if not side.requests:
        return "no requests"
    return f"{side.requests:,.0f} requests, {side.error_rate:.1%} failed, 95 % within {side.latency * 1e3:.1f} ms"
