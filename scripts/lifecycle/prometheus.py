"""What a Prometheus that scrapes services knows of their versions: of all services, also of those that are gone."""

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
"""What a version was asked in the last hour is what the next one is compared with."""

LOOKBACK_SECONDS = 300
"""A time series without a sample in as long a time was not there. Source: Prometheus' own default."""

N_ATTEMPTS = 3
REQUEST_SECONDS = 5
PAUSE_SECONDS = 2
"""Between attempts to ask; then the answer is not known."""

BUSY = frozenset({429, 500, 502, 503, 504})
"""Answers that may be others a little later."""


class PrometheusError(LifecycleError):
    """It does not answer; a little later it may."""


class Series(msgspec.Struct):
    """A time series, as a query gives it."""

    metric: dict[str, str]
    value: tuple[float, str] = (0, "0")
    """Of one moment."""
    values: list[tuple[float, str]] = []
    """Of a range, from old to new."""


class _Data(msgspec.Struct):
    result: list[Series]


class _Answer(msgspec.Struct):
    data: _Data


class Prometheus:
    """A server that scrapes services.

    Counters are added up from their samples and not by `increase()`: that leaves out the first sample of a time
    series, and a version that is new, or fails for the first time, shows up with one that counts.
    """

    def __init__(self, url: str) -> None:
        """Asks for the time, by which its samples are told from older ones.

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
        """Returns by how much counters grew from a moment on, each with its labels, and how often it began anew.

        Args:
            matchers: of its labels, as they stand between the braces of a query.
            start: the moment, by its time.
            is_past: what was counted before the first sample may count, too: it is a little more of the past.

        Raises:
            LifecycleError: it cannot be asked.
        """
        # Where nothing was scraped then, or its samples are lost, no series is known to have begun since.
        was_scraping = is_past or bool(self.ask("model_info", start))
        seconds = max(1, math.ceil(self.now - start)) + LOOKBACK_SECONDS
        for series in self.ask(f"{{{matchers}}}[{seconds}s]"):
            samples = [(at, float(value)) for at, value in series.values]
            grown, resets = increase(samples, start)
            if not was_scraping and samples and samples[0][0] > start:
                grown -= samples[0][1]
            yield series.metric, grown, resets

    def ask(self, query: str, at: float | None = None) -> list[Series]:
        """Returns what a query of one moment gives.

        Args:
            query: in PromQL.
            at: the moment, by its time; None takes the present one.

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
    """The counts of all services that a Prometheus scrapes."""

    look_seconds = 5.0

    def __init__(self, url: str, model: str, selector: str = "") -> None:
        """Takes what tells the services from others.

        Args:
            url: of the server.
            model: the registered model's name, the label `model` of the metrics.
            selector: more label matchers, as they stand between the braces of a query.

        Raises:
            LifecycleError: it does not answer.
        """
        self._prometheus = Prometheus(url)
        self._model = f"model={json.dumps(model, ensure_ascii=False)}"
        self._selector = selector

    def past(self, version: str) -> Counts:
        """Returns what a version was asked in the last hour.

        Raises:
            LifecycleError: it cannot be asked, or scrapes no service with the model, so that nothing could be judged.
        """
        info = f"model_info{{{self._matchers()}}}"
        if not self._prometheus.ask(info):
            raise LifecycleError(
                f"{self._prometheus.name} has no {info}: it scrapes no service with this model"
            )
        return self._counts(version, self._prometheus.now - PAST_SECONDS, is_past=True)

    def follow(self, version: str) -> Callable[[], Counts]:
        """Returns what tells what the version was asked from now on, as far as it was scraped."""
        start = self._prometheus.now
        return lambda: self._counts(version, start)

    def _matchers(self, *more: str) -> str:
        return ",".join(filter(None, (self._model, *more, self._selector)))

    def _counts(self, version: str, start: float, *, is_past: bool = False) -> Counts:
        names = "|".join((ANSWERED, FAILED, SECONDS))
        matchers = self._matchers(f'__name__=~"{names}"', f'version="{version}"', 'role!="shadow"')
        found = self._prometheus.increases(matchers, start, is_past=is_past)
        return add_up(counts_of(labels["__name__"], grown) for labels, grown, _ in found)


def _fetch(url: str) -> bytes:
    """Returns an answer of any size: that of an hour of many services is large."""
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
    """Returns by how much a counter grew, and how often it began anew.

    Args:
        samples: moments and values, from old to new. A counter whose first sample is after the start began at zero; one
            that went back began anew, with the process that kept it.
        start: the moment from which on it counts.
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
    """Returns what Prometheus says is wrong with a query, in a line."""
    try:
        said = json.loads(error.read())["error"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return " ".join(str(said).split())
