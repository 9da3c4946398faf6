"""Metrics of a canary's two sides, from Prometheus."""

from collections import defaultdict
from collections.abc import Callable
from typing import Literal

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.counters import FAILED
from scripts.lifecycle.prometheus import PAST_SECONDS, Prometheus
from scripts.rollout.judgement import Behaviour
from scripts.rollout.target import Sides

BUCKETS = "model_prediction_latency_seconds_bucket"
CLASSES = "model_predicted_class_total"
"""The metrics that are read. Source: `serving.monitoring.metrics`."""


class Measure:
    """Reads the behaviour of both sides."""

    def __init__(self, prometheus: Prometheus, sides: Sides) -> None:
        self._prometheus = prometheus
        self._sides = sides

    def check(self, side: Literal["stable", "canary"]) -> None:
        """Checks that a side is scraped.

        Raises:
            LifecycleError: it is not, or the query fails.
        """
        query = f"model_info{{{getattr(self._sides, side)}}}"
        if not self._prometheus.ask(query):
            raise LifecycleError(
                f"{self._prometheus.name} has no {query}: it does not scrape the {side} pods, or their labels "
                f"differ (--{side}-metrics)"
            )

    def follow(self, *, is_alone: bool) -> Callable[[], tuple[Behaviour, Behaviour]]:
        """Returns a function that returns the behaviour of the stable side and the canary since now, as scraped.

        Args:
            is_alone: the canary has all traffic; the stable side's behaviour is then that of the hour before.
        """
        start = self._prometheus.now
        stable, canary = self._sides
        past = self._behaviour(stable, start - PAST_SECONDS, is_past=True) if is_alone else None
        return lambda: (past or self._behaviour(stable, start), self._behaviour(canary, start))

    def _behaviour(self, matchers: str, start: float, *, is_past: bool = False) -> Behaviour:
        names = "|".join((BUCKETS, FAILED, CLASSES))
        failed = 0.0
        buckets: defaultdict[float, float] = defaultdict(float)
        classes: defaultdict[str, float] = defaultdict(float)
        wanted = f'__name__=~"{names}",role!="shadow",{matchers}'
        restarts = 0
        for labels, grown, resets in self._prometheus.increases(wanted, start, is_past=is_past):
            restarts = max(restarts, resets)
            match labels["__name__"]:
                case name if name == BUCKETS:
                    buckets[float(labels["le"].replace("Inf", "inf"))] += grown
                case name if name == FAILED:
                    failed += grown
                case _ if labels["role"] == "champion":
                    classes[labels["predicted_class"]] += grown
        return Behaviour(failed, buckets, {name: rows for name, rows in classes.items() if rows}, restarts)
