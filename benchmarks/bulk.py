"""One client with many rows in each request."""

import http.client
import statistics
import time
from collections.abc import Callable

from benchmarks.failures import Refused
from benchmarks.peers.protocol import Request
from benchmarks.processes import Server
from benchmarks.results import Bulk

TIMEOUT_SECONDS = 120


def post(server: Server, request: Request) -> bytes:
    """Sends one request over a new connection; returns the answer's body.

    Raises:
        BenchmarkFailure: no answer.
        Refused: a status other than 2xx.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS)
    try:
        return exchange(connection, request)
    except (OSError, http.client.HTTPException) as error:
        raise server.failure(f"no answer to POST {request.path}: {type(error).__name__}") from None
    finally:
        connection.close()


def exchange(connection: http.client.HTTPConnection, request: Request) -> bytes:
    """Sends one request over a keep-alive connection; returns the answer's body."""
    connection.request("POST", request.path, request.body, {"Content-Type": request.content_type})
    response = connection.getresponse()
    body = response.read()
    if not 200 <= response.status < 300:
        text = body[:500].decode(errors="replace")
        raise Refused(f"POST {request.path} returned status {response.status}", text)
    return body


def time_bulk(server: Server, request: Request, n_rows: int, form: str, seconds: float) -> Bulk:
    """Repeats the request for some seconds, at least three times, after one warm-up.

    Raises:
        BenchmarkFailure: a request got no answer, or a status other than 2xx.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS)
    try:
        times = repeat(lambda: exchange(connection, request), seconds)
    except (OSError, http.client.HTTPException) as error:
        raise server.failure(f"no answer to {n_rows:,} rows as {form}: {type(error).__name__}") from None
    finally:
        connection.close()
    return Bulk(
        rows=n_rows,
        form=form,
        median_ms=round(statistics.median(times) * 1e3, 4),
        fastest_ms=round(min(times) * 1e3, 4),
        repeats=len(times),
        body_bytes=len(request.body),
    )


def repeat(action: Callable[[], object], seconds: float) -> list[float]:
    """Times an action for some seconds, at least three times after one warm-up; returns the seconds of each call."""
    action()
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < ends:
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return times
