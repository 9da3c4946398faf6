"""Many clients with small requests: runs wrk and interprets its numbers."""

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.failures import BenchmarkFailure
from benchmarks.peers.protocol import Request
from benchmarks.places import BENCHMARKS
from benchmarks.processes import Server
from benchmarks.results import Load

TIMEOUT_SECONDS = 30
"""An answer that takes longer counts as an error. At 80 answers per second, 256 clients wait for 3 s."""

Histogram = dict[int, int]
"""Number of requests by latency in microseconds."""


def find_wrk() -> str:
    """Returns the path of wrk.

    Raises:
        BenchmarkFailure: it is not installed; has the command to install it.
    """
    path = shutil.which("wrk")
    if path is None:
        raise BenchmarkFailure("wrk is missing; install it with: apt-get install wrk")
    return path


class Bodies(NamedTuple):
    """Requests to send in turn."""

    file: Path
    """One body per line."""
    path: str
    content_type: str


def write_bodies(file: Path, requests: Sequence[Request]) -> Bodies:
    """Writes the bodies of requests that differ only in their body."""
    file.write_bytes(b"\n".join(request.body for request in requests) + b"\n")
    return Bodies(file, requests[0].path, requests[0].content_type)


def put_load(server: Server, bodies: Bodies, clients: int, seconds: float) -> Load:
    """Sends the bodies for some seconds from concurrent clients.

    Raises:
        BenchmarkFailure: wrk exits with an error, or no request was answered.
    """
    cpu_seconds = server.cpu_seconds()
    command = [find_wrk(), "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout"]
    command += [f"{TIMEOUT_SECONDS}s", "-s", str(BENCHMARKS / "load.lua")]
    command += [f"http://127.0.0.1:{server.port}{bodies.path}", "--", str(bodies.file), bodies.content_type]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    cpu_seconds = server.cpu_seconds() - cpu_seconds
    if done.returncode:
        raise BenchmarkFailure(f"wrk exited with code {done.returncode}", done.stderr or done.stdout)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    requests: int = said["requests"]
    if not requests:
        raise server.failure(f"{clients} clients got no answer within {seconds:g} s")
    wrk_counts = dict(map(tuple, said["latencies"]))
    counts = measured_latencies(wrk_counts, said["microseconds"], requests, clients)
    measured_seconds = said["microseconds"] / 1e6
    return Load(
        clients=clients,
        seconds=round(measured_seconds, 3),
        requests=requests,
        non_2xx=said["non_2xx"],
        socket_errors=said["socket_errors"],
        requests_per_second=round((requests - said["non_2xx"]) / measured_seconds, 2),
        p50_ms=percentile(counts, 0.50) / 1e3,
        p99_ms=percentile(counts, 0.99) / 1e3,
        wrk_p99_ms=percentile(wrk_counts, 0.99) / 1e3,
        cpu_ms_per_request=round(cpu_seconds / requests * 1e3, 4),
    )


def measured_latencies(wrk_counts: Histogram, duration_us: int, requests: int, clients: int) -> Histogram:
    """Removes the latencies that wrk did not measure.

    For each latency above twice the mean, wrk adds estimated latencies of requests not sent meanwhile (a
    correction for "coordinated omission"). Here each client waits for its answer, and percentiles are of
    actual answers.

    Source: `stats_correct` in wrk 4's stats.c, and its call in wrk.c. What it adds is subtracted from the
    slowest latency down, so that above each latency the counts are already as measured.
    """
    rounds = requests // clients
    if not rounds:
        return dict(wrk_counts)
    interval = duration_us // rounds
    counts = dict(wrk_counts)
    for latency in sorted(wrk_counts, reverse=True):
        count = counts.get(latency, 0)
        if count <= 0 or latency < 2 * interval:
            continue
        for omitted in range(latency - interval, interval, -interval):
            if omitted in counts:
                counts[omitted] -= count
    return {latency: count for latency, count in counts.items() if count > 0}


def percentile(counts: Histogram, share: float) -> int:
    """Returns the latency percentile for this share of the requests, in microseconds."""
    rank = math.ceil(share * sum(counts.values()))
    passed = 0
    for latency in sorted(counts):
        passed += counts[latency]
        if passed >= rank:
            return latency
    raise ValueError("there are no latencies")
