"""What a Prometheus that scrapes services knows of their versions: of all services, also of those that are gone."""

import http.client
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable

import msgspec

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.counting import ANSWERED, FAILED, SECONDS, counts_of
from scripts.lifecycle.guard import Counts
from scripts.training.registration import reason
from serving.prepare.resolving import redact

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


class _Series(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str] = (0, "0")
    """Of one moment."""
    values: list[tuple[float, str]] = []
    """Of a range, from old to new."""


class _Data(msgspec.Struct):
    result: list[_Series]


class _Answer(msgspec.Struct):
    data: _Data


class PrometheusCounts:
    """The counts of all services that a Prometheus scrapes.

    The samples are added up here and not by `increase()`: that leaves out the first sample of a time series, and a
    version that is new, or fails for the first time, shows up with one that counts.
    """

    look_seconds = 5.0

    def __init__(self, url: str, model: str, selector: str = "") -> None:
        """Asks for the time, by which its samples are told from older ones.

        Args:
            url: of the server, with the path before `/api/v1` if there is one.
            model: the registered model's name, the label `model` of the metrics.
            selector: more label matchers, as they stand between the braces of a query.

        Raises:
            LifecycleError: it does not answer.
        """
        self._url = url.rstrip("/")
        self._model = f"model={json.dumps(model, ensure_ascii=False)}"
        self._selector = selector
        (now,) = self._ask("vector(time())")
        self._ahead_seconds = float(now.value[1]) - time.monotonic()

    def past(self, version: str) -> Counts:
        """Returns what a version was asked in the last hour.

        Raises:
            LifecycleError: it cannot be asked, or scrapes no service with the model, so that nothing could be judged.
        """
        info = f"model_info{{{self._matchers()}}}"
        if not self._ask(info):
            raise LifecycleError(
                f"the Prometheus {redact(self._url)} has no {info}: it scrapes no service with this model"
            )
        return self._counts(version, self._now() - PAST_SECONDS)

    def follow(self, version: str) -> Callable[[], Counts]:
        """Returns what tells what the version was asked from now on, as far as it was scraped."""
        start = self._now()
        return lambda: self._counts(version, start)

    def _now(self) -> float:
        return self._ahead_seconds + time.monotonic()

    def _matchers(self, *more: str) -> str:
        return ",".join(filter(None, (self._model, *more, self._selector)))

    def _counts(self, version: str, start: float) -> Counts:
        names = "|".join((ANSWERED, FAILED, SECONDS))
        matchers = self._matchers(f'__name__=~"{names}"', f'version="{version}"', 'role!="shadow"')
        seconds = math.ceil(self._now() - start) + LOOKBACK_SECONDS
        total = Counts()
        for series in self._ask(f"{{{matchers}}}[{seconds}s]"):
            samples = ((at, float(value)) for at, value in series.values)
            total += counts_of(series.metric["__name__"], increase(samples, start))
        return total

    def _ask(self, query: str) -> list[_Series]:
        path = f"/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        who = f"the Prometheus {redact(self._url)}"
        why = ""
        for attempt in range(N_ATTEMPTS):
            time.sleep(PAUSE_SECONDS if attempt else 0)
            try:
                return msgspec.json.decode(_fetch(f"{self._url}{path}"), type=_Answer).data.result
            except urllib.error.HTTPError as error:
                with error:
                    why = f"{error.code} {error.reason}"
                    if error.code not in BUSY:
                        raise LifecycleError(f"{who} refuses {query}: {_message(error) or why}") from None
            except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                why = reason(error)
        raise LifecycleError(f"{who} does not answer as one: {why}")


def _fetch(url: str) -> bytes:
    """Returns an answer of any size: that of an hour of many services is large."""
    with urllib.request.urlopen(url, timeout=REQUEST_SECONDS) as answer:  # noqa: S310  # the user's own
        body: bytes = answer.read()
        return body


def increase(samples: Iterable[tuple[float, float]], start: float) -> float:
    """Returns by how much a counter grew.

    Args:
        samples: moments and values, from old to new. A counter whose first sample is after the start began at zero; one
            that went back began anew, with the process that kept it.
        start: the moment from which on it counts.
    """
    total = last = 0.0
    for at, value in samples:
        if at > start:
            total += value - last if value >= last else value
        last = value
    return total


def _message(error: urllib.error.HTTPError) -> str:
    """Returns what Prometheus says is wrong with a query, in a line."""
    try:
        said = json.loads(error.read())["error"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return " ".join(str(said).split())
