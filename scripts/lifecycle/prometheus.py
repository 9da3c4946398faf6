"""Counters of versions from a Prometheus: of all services that it scrapes, including those that have ended."""

import base64
import http.client
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator

import msgspec

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.connection import reason
from scripts.lifecycle.counters import ANSWERED, FAILED, SECONDS, add_up, counts_of
from scripts.lifecycle.guard import Counts
from serving.prepare.registry.bounded_http import Redirects
from serving.redaction import redact

PAST_SECONDS = 3600
"""Period of the version before that the next one is compared with."""

LOOKBACK_SECONDS = 300
"""A time series without a sample for this long is absent. Source: Prometheus' own default."""

N_ATTEMPTS = 3
REQUEST_SECONDS = 5
PAUSE_SECONDS = 2
"""Between attempts at a query."""

BUSY = frozenset({429, 500, 502, 503, 504})
"""Statuses worth retrying."""


class PrometheusError(LifecycleError):
    """It does not answer; a retry may succeed."""


class Series(msgspec.Struct):
    """A time series, as a query returns it."""

    metric: dict[str, str]
    value: tuple[float, str] = (0, "0")
    """Of an instant query."""
    values: list[tuple[float, str]] = []
    """Of a range query, oldest first."""


class _Data(msgspec.Struct):
    result: list[Series]


class _Answer(msgspec.Struct):
    data: _Data


class Prometheus:
    """A server that scrapes services.

    Increases are computed from samples, not by `increase()`: that ignores the first sample of a time series, which
    counts for a version that is new, or fails for the first time.
    """

    def __init__(self, url: str) -> None:
        """Reads the server's clock, which dates its samples.

        Args:
            url: of the server, with the path before `/api/v1` if there is one.

        Raises:
            LifecycleError: it does not answer.
        """
        self._url = url.rstrip("/")
        self.name = f"the Prometheus {redact(self._url)}"
        (now,) = self.ask("vector(time())")
        self._ahead_seconds = float(now.value[1]) - time.monotonic()

    @property
    def now(self) -> float:
        """Its time, in seconds since 1970."""
        return self._ahead_seconds + time.monotonic()

    def increases(
        self, matchers: str, start: float, *, is_past: bool = False
    ) -> Iterator[tuple[dict[str, str], float, int]]:
        """Yields the labels of counters, their increases since a moment, and how often each was reset.

        Args:
            matchers: of the labels, as between the braces of a query.
            start: the moment, by the server's clock.
            is_past: counts before the first sample may be included: they only extend the past.

        Raises:
            LifecycleError: a query fails.
        """
        # If nothing was scraped then, or the samples are lost, no series is known to have started since.
        was_scraping = is_past or bool(self.ask("model_info", start))
        seconds = max(1, math.ceil(self.now - start)) + LOOKBACK_SECONDS
        for series in self.ask(f"{{{matchers}}}[{seconds}s]"):
            samples = [(at, float(value)) for at, value in series.values]
            grown, resets = increase(samples, start)
            if not was_scraping and samples and samples[0][0] > start:
                grown -= samples[0][1]
            yield series.metric, grown, resets

    def ask(self, query: str, at: float | None = None) -> list[Series]:
        """Returns the result of an instant query.

        Args:
            query: in PromQL.
            at: the moment, by the server's clock; None takes the present.

        Raises:
            PrometheusError: it does not answer.
            LifecycleError: it refuses the query.
        """
        parameters = {"query": query} if at is None else {"query": query, "time": f"{at:.3f}"}
        path = f"/api/v1/query?{urllib.parse.urlencode(parameters)}"
        why = ""
        for attempt in range(N_ATTEMPTS):
            time.sleep(PAUSE_SECONDS if attempt else 0)
            try:
                return msgspec.json.decode(_fetch(f"{self._url}{path}"), type=_Answer).data.result
            except urllib.error.HTTPError as error:
                with error:
                    why = f"{error.code} {error.reason}"
                    if error.code not in BUSY:
                        raise LifecycleError(
                            f"{self.name} refuses {query}: {_message(error) or why}"
                        ) from None
            except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                why = reason(error)
        raise PrometheusError(f"{self.name} gave no valid answer: {why}")


class PrometheusCounts:
    """The counters of all services that a Prometheus scrapes."""

    look_seconds = 5.0

    def __init__(self, url: str, model: str, selector: str = "") -> None:
        """Takes what selects the services.

        Args:
            url: of the server.
            model: the registered model's name, the label `model_name` of the metrics.
            selector: more label matchers, as between the braces of a query.

        Raises:
            LifecycleError: it does not answer.
        """
        self._prometheus = Prometheus(url)
        self._model = f"model_name={json.dumps(model, ensure_ascii=False)}"
        self._selector = selector

    def past(self, version: str) -> Counts:
        """Returns a version's counters over the last hour.

        Raises:
            LifecycleError: a query fails, or no service with the model is scraped.
        """
        info = f"model_info{{{self._matchers()}}}"
        if not self._prometheus.ask(info):
            raise LifecycleError(
                f"{self._prometheus.name} has no {info}: it scrapes no service with this model"
            )
        return self._counts(version, self._prometheus.now - PAST_SECONDS, is_past=True)

    def follow(self, version: str) -> Callable[[], Counts]:
        """Returns a function that returns the version's counters since now, as scraped."""
        start = self._prometheus.now
        return lambda: self._counts(version, start)

    def _matchers(self, *more: str) -> str:
        return ",".join(filter(None, (self._model, *more, self._selector)))

    def _counts(self, version: str, start: float, *, is_past: bool = False) -> Counts:
        names = "|".join((ANSWERED, FAILED, SECONDS))
        matchers = self._matchers(f'__name__=~"{names}"', f'model_version="{version}"', 'role!="shadow"')
        found = self._prometheus.increases(matchers, start, is_past=is_past)
        return add_up(counts_of(labels["__name__"], grown) for labels, grown, _ in found)


def _fetch(url: str) -> bytes:
    """Returns an answer of any size: an hour of many services is large."""
    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310  # the user's own
    if login:
        plain = urllib.parse.unquote(login).encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(plain).decode()}")
    opener = urllib.request.build_opener(Redirects)
    with opener.open(request, timeout=REQUEST_SECONDS) as answer:
        body: bytes = answer.read()
        return body


def increase(samples: Iterable[tuple[float, float]], start: float) -> tuple[float, int]:
    """Returns a counter's increase, and how often it was reset.

    Args:
        samples: moments and values, oldest first. A counter whose first sample is after the start began at zero; one
            that decreased was reset by a restart.
        start: the moment from which increases count.
    """
    total = last = 0.0
    resets = 0
    for at, value in samples:
        if at > start:
            is_reset = value < last
            total += value if is_reset else value - last
            resets += is_reset
        last = value
    return total, resets


def _message(error: urllib.error.HTTPError) -> str:
    """Returns Prometheus' error message in one line."""
    try:
        said = json.loads(error.read())["error"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return " ".join(str(said).split())
