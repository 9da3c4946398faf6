"""Sources of a version's counters, and the services' own at `/metrics`."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from prometheus_client.parser import text_string_to_metric_families

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.endpoints import Endpoint, endpoints_of_all
from scripts.lifecycle.guard import Counts
from scripts.lifecycle.services import fetch

ANSWERED = "model_prediction_latency_seconds_count"
SECONDS = "model_prediction_latency_seconds_sum"
FAILED = "model_prediction_errors_total"
"""The metrics that are read. Source: `serving.monitoring.metrics`."""


class CountSource(Protocol):
    """A source of the request counters of a model's versions."""

    @property
    def look_seconds(self) -> float:
        """Sensible polling interval."""

    def past(self, version: str) -> Counts:
        """Returns a version's counters up to now.

        Raises:
            LifecycleError: they cannot be read.
        """

    def follow(self, version: str) -> Callable[[], Counts]:
        """Returns a function that returns the version's counters since now.

        It raises LifecycleError if they cannot be read.
        """


class ServiceCounts:
    """The counters that each service shows at `/metrics`."""

    look_seconds = 1.0

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    def past(self, version: str) -> Counts:
        """Returns what the services that answer have counted since they started.

        Raises:
            LifecycleError: one does not answer with metrics.
        """
        return add_up(self._ask(version).values())

    def follow(self, version: str) -> Callable[[], Counts]:
        """Returns a function that returns what they have counted since now.

        A service that does not answer now counts from its first answer.
        """
        start = self._ask(version)
        found: dict[str, Counts] = {}

        def since() -> Counts:
            for url, counts in self._ask(version).items():
                found[url] = counts.since(start.setdefault(url, counts))
            return add_up(found.values())

        return since

    def _ask(self, version: str) -> dict[str, Counts]:
        return {url: read_counts(text, version, url) for url, text in read_metrics(self._urls).items()}


def add_up(counts: Iterable[Counts]) -> Counts:
    """Returns the sum."""
    return sum(counts, start=Counts())


def read_metrics(urls: Sequence[str]) -> dict[str, str]:
    """Returns the `/metrics` of the services that answer, each at every address of its name, by URL and address."""

    def ask(endpoint: Endpoint) -> str | None:
        with contextlib.suppress(OSError):
            return fetch(endpoint.url, "/metrics", endpoint.address).decode(errors="replace")
        return None

    endpoints = endpoints_of_all(urls)
    with ThreadPoolExecutor(max(1, len(endpoints))) as pool:
        texts = zip(endpoints, pool.map(ask, endpoints), strict=True)
        return {str(endpoint): text for endpoint, text in texts if text is not None}


def read_counts(metrics: str, version: str, url: str) -> Counts:
    """Returns what a service has counted for a version, except as a shadow.

    Args:
        metrics: the text of its `/metrics`.
        version: its number.
        url: of the service, for messages.

    Raises:
        LifecycleError: the text is something else, or incomplete.
    """
    total = Counts()
    try:
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                if sample.labels.get("model_version") == version and sample.labels.get("role") != "shadow":
                    total += counts_of(sample.name, sample.value)
    except (ValueError, LookupError):
        raise LifecycleError(f"{url}/metrics does not answer with metrics") from None
    return total


def counts_of(name: str, value: float) -> Counts:
    """Returns what a sample counts; zeros if its metric is none of these."""
    return Counts(
        answered=value if name == ANSWERED else 0,
        failed=value if name == FAILED else 0,
        seconds=value if name == SECONDS else 0,
    )
