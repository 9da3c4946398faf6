"""Who is asked how versions do, and what services say of it themselves."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from prometheus_client.parser import text_string_to_metric_families

from scripts.lifecycle.guard import Counts
from scripts.lifecycle.services import fetch

ANSWERED = "model_prediction_latency_seconds_count"
SECONDS = "model_prediction_latency_seconds_sum"
FAILED = "model_prediction_errors_total"
"""The metrics that are looked at. Source: `serving.monitoring.metrics`."""


class CountSource(Protocol):
    """Whoever counts the requests of a model's versions."""

    @property
    def look_seconds(self) -> float:
        """How often it is worth asking."""

    def past(self, version: str) -> Counts:
        """Returns what a version was asked up to now.

        Raises:
            LifecycleError: that cannot be known.
        """

    def follow(self, version: str) -> Callable[[], Counts]:
        """Returns what tells, whenever it is called, what the version was asked from now on.

        It raises LifecycleError where that is not known any more.
        """


class ServiceCounts:
    """The counts of services, as each of them shows its own at `/metrics`."""

    look_seconds = 1.0

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    def past(self, version: str) -> Counts:
        """Returns what the services that answer have counted since they started."""
        return read_counts(read_metrics(self._urls), version)

    def follow(self, version: str) -> Callable[[], Counts]:
        """Returns what tells what they have counted from now on."""
        start = self.past(version)
        return lambda: self.past(version).since(start)


def read_metrics(urls: Sequence[str]) -> list[str]:
    """Returns the `/metrics` of the services that answer."""
    texts = []
    for url in urls:
        with contextlib.suppress(OSError):
            texts.append(fetch(url, "/metrics").decode())
    return texts


def read_counts(metrics: Iterable[str], version: str) -> Counts:
    """Returns what services have counted for a version, whoever's shadow it is not.

    Args:
        metrics: the text of `/metrics` of each service.
        version: its number.
    """
    total = Counts()
    for text in metrics:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("version") != version or sample.labels.get("role") == "shadow":
                    continue
                total += counts_of(sample.name, sample.value)
    return total


def counts_of(name: str, value: float) -> Counts:
    """Returns what a sample counts; nothing where its metric is not one that is looked at."""
    return Counts(
        answered=value if name == ANSWERED else 0,
        failed=value if name == FAILED else 0,
        seconds=value if name == SECONDS else 0,
    )
