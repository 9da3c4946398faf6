"""Requests and retries, as a generator, so that the two clients differ only in how they wait."""

import email.utils
import random
import re
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import httpx
import numpy as np

from .answers import Answer, decode_array, decode_predictions, to_error, to_frame
from .bodies import JSON, PREDICT, chunk_rows, to_batch, to_body
from .cells import Array
from .errors import ClientError, TimedOut, UnexpectedAnswer, Unreachable, VersionChanged
from .rows import Rows, to_rows

CONNECT_SECONDS = 5.0
"""Connecting takes milliseconds; a slower attempt is better retried."""

GRACE_SECONDS = 1.0
"""Time for the service's own timeout error to arrive."""

BACKOFF_SECONDS = 0.25
"""The first pause without `Retry-After`; each further one is twice as long."""

KEEP_ALIVE_SECONDS = 4.0
"""The service closes idle connections after 5 seconds, and a request sent at that moment would be lost."""

T = TypeVar("T")


def _count(part: Any) -> int:
    return len(part["predictions"] if isinstance(part, dict) else part)


class Post(NamedTuple):
    """One request."""

    path: str
    media_type: str
    body: bytes
    headers: Mapping[str, str]
    deadline: float

    def options(self) -> dict[str, Any]:
        """Returns httpx's arguments; the service gets the remaining time as its timeout."""
        left = max(self.deadline - time.monotonic(), 0.001)
        headers = {**self.headers, "content-type": self.media_type, "x-request-timeout": f"{left:.3f}"}
        timeout = httpx.Timeout(left + GRACE_SECONDS, connect=min(left, CONNECT_SECONDS))
        return {"url": self.path, "content": self.body, "headers": headers, "timeout": timeout}

    def check(self) -> None:
        """Aborts an answer that arrives too slowly."""
        if time.monotonic() > self.deadline + GRACE_SECONDS:
            raise httpx.ReadTimeout("the answer is not complete")


class Failure(NamedTuple):
    """An error instead of an answer."""

    error: httpx.HTTPError
    has_answered: bool
    """Whether the answer had started."""


Outcome = Answer | Failure | None
Flow = Generator[Post | float, Outcome, T]
"""Yields a request to send, or the seconds to wait; receives the outcome."""


def pause_seconds(outcome: Outcome, n_retries: int) -> float | None:
    """Returns the pause before a retry; None if a retry would not help."""
    match outcome:
        case Failure(httpx.ConnectError() | httpx.ConnectTimeout(), _):
            pass
        case Failure(httpx.ReadError() | httpx.WriteError() | httpx.RemoteProtocolError(), False):
            pass
        case Answer(429 | 503, headers, _) if (named := _retry_after(headers)) is not None:
            return named * random.uniform(1, 1.1)  # noqa: S311  # so that clients do not retry in step
        case Answer(429 | 503, _, _):
            pass
        case _:
            return None
    return BACKOFF_SECONDS * float(2**n_retries) * random.uniform(1, 1.5)  # noqa: S311  # the same


def _retry_after(headers: httpx.Headers) -> float | None:
    """Returns the seconds in the header, which may be a date instead. Source: RFC 9110, section 10.2.3."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    return max(moment.timestamp() - time.time(), 0.0)


def to_unreachable(failure: Failure, url: str, timeout_seconds: float, n_retries: int) -> ClientError:
    """Returns the error for a request that got no answer."""
    error = failure.error
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOut(f"{url}: no answer within timeout_seconds={timeout_seconds:g}")
    is_connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
    # Messages of protocol errors may quote a header.
    reason = "" if is_connected or not str(error) else f": {error}"
    tries = f", tried {n_retries + 1} times" if n_retries else ""
    what = "the connection broke" if is_connected else "no connection"
    return Unreachable(f"{url}: {what} ({type(error).__name__}{reason}){tries}")


def merge_headers(*several: Mapping[str, Any] | None) -> dict[str, str]:
    """Returns headers by names in lower case, the last of each.

    Raises:
        ValueError: one is invalid in HTTP; the message omits its value.
    """
    merged: dict[str, str] = {}
    for headers in several:
        for name, value in (headers or {}).items():
            if (
                not isinstance(value, str)
                or not (value.isascii() and value.isprintable())
                or value != value.strip()
            ):
                raise ValueError(
                    f"headers: expected text in ASCII, without line ends or spaces around it, as {name}"
                )
            merged[name.lower()] = value
    return merged


class Exchange:
    """The logic that both clients share."""

    def __init__(
        self, url: str, headers: Mapping[str, str] | None, timeout_seconds: float, retries: int
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            parsed = httpx.URL("")  # httpx's message may quote a password
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("url: expected http://HOST:PORT or https://HOST")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds: expected a number above 0, got {timeout_seconds}")
        if retries < 0:
            raise ValueError(f"retries: expected 0 or more, got {retries}")
        self._shown = str(parsed.copy_with(username=None, password=None, query=None, fragment=None))
        self._headers = merge_headers(headers)
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        self._options: dict[str, Any] = {
            "base_url": parsed,
            "limits": httpx.Limits(max_connections=100, keepalive_expiry=KEEP_ALIVE_SECONDS),
        }

    def _predict(
        self,
        given: Any,
        params: Mapping[str, Any] | None,
        version: str | int | None,
        headers: Mapping[str, str] | None,
    ) -> Flow[Any]:
        rows = to_rows(given)

        def encode(start: int, stop: int) -> tuple[str, str, bytes]:
            return PREDICT, JSON, to_body(rows, start, stop, params)

        answers = yield from self._ask_all(rows, encode, self._named(headers, version), decode_predictions)
        predictions = [one for answer in answers for one in answer["predictions"]]
        if rows.index is None:
            return predictions
        frame = to_frame(predictions, rows.index)
        frame.attrs["model"] = answers[0].get("model")
        frame.attrs["request_ids"] = [answer.get("request_id") for answer in answers]
        return frame

    def _predict_batch(
        self, given: Any, version: str | int | None, headers: Mapping[str, str] | None
    ) -> Flow[Array]:
        rows = to_rows(given)

        def encode(start: int, stop: int) -> tuple[str, str, bytes]:
            return to_batch(rows, start, stop)

        parts = yield from self._ask_all(rows, encode, self._named(headers, version), decode_array)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _named(self, headers: Mapping[str, str] | None, version: str | int | None) -> dict[str, str]:
        return merge_headers(
            self._headers, headers, None if version is None else {"x-model-version": str(version)}
        )

    def _ask_all(
        self,
        rows: Rows,
        encode: Callable[[int, int], tuple[str, str, bytes]],
        headers: dict[str, str],
        decode: Callable[[Answer], T],
    ) -> Flow[list[T]]:
        """Sends the rows in as many requests as needed, one after the other."""
        start, size = 0, chunk_rows(rows)
        parts: list[T] = []
        versions: list[str | None] = []
        if size < rows.n_rows:
            # Else each request would be assigned to champion or challenger separately.
            headers = {"x-routing-key": uuid.uuid4().hex, **headers}
        while start < rows.n_rows or not parts:
            stop = min(start + size, rows.n_rows)
            answer = yield from self._ask(*encode(start, stop), headers)
            if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and stop - start > 1:
                size = (stop - start + 1) // 2
                continue
            if answer.status != HTTPStatus.OK:
                raise to_error(answer, rows, start, stop)
            parts.append(decode(answer))
            versions.append(answer.headers.get("x-model-version"))
            if versions[-1] != versions[0]:
                raise VersionChanged(
                    f"version {versions[0]} answered the first {start} rows, and version {versions[-1]} the next; "
                    "send all of them again"
                )
            n_answers = _count(parts[-1])
            if stop - start < rows.n_rows and n_answers != stop - start:
                raise UnexpectedAnswer(
                    f"expected {stop - start} predictions, one per row, got {n_answers}; a model that answers for all "
                    f"rows together takes at most {size} of them",
                    answer.status,
                )
            start = stop
        return parts

    def _ask(self, path: str, media_type: str, body: bytes, headers: Mapping[str, str]) -> Flow[Answer]:
        """Sends one request, and retries it if that helps and time remains."""
        deadline = time.monotonic() + self._timeout_seconds
        n_retries = 0
        while True:
            outcome = yield Post(path, media_type, body, headers, deadline)
            pause = pause_seconds(outcome, n_retries)
            if pause is None or n_retries == self._retries or time.monotonic() + pause >= deadline:
                break
            yield pause
            n_retries += 1
        if isinstance(outcome, Failure):
            raise to_unreachable(
                outcome, f"{self._shown.rstrip('/')}/{path}", self._timeout_seconds, n_retries
            )
        assert outcome is not None
        return outcome
