"""What monitoring costs: one service without any, and one with some, measured in turn."""

import contextlib
import http.client
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.bulk import TIMEOUT_SECONDS, exchange, repeat
from benchmarks.cases import Plan
from benchmarks.collector import Collector
from benchmarks.correctness import check_answers
from benchmarks.failures import BenchmarkFailure
from benchmarks.load import Bodies, put_load, write_bodies
from benchmarks.measuring import N_BODIES, WARM_UP_CLIENTS, say, started
from benchmarks.peers.project import Project
from benchmarks.peers.protocol import Request
from benchmarks.processes import Launch, OtherProcesses, Server
from benchmarks.results import MonitoringCost, Pairs
from benchmarks.rows import Model, Record, load_model

OFF = {"SERVING_MONITORED_FEATURES": "0"}
"""In addition to `SERVING_METRICS=false`."""

METRICS = {"SERVING_METRICS": "true"}
DRIFT = {"SERVING_MONITORED_FEATURES": "50"}
LOG = {"SERVING_LOG_PREDICTIONS": "predictions"}
FEEDBACK = {"SERVING_FEEDBACK_STORE": "sqlite"}
CONTROL, EVERYTHING = "nothing (control)", "everything but traces"
KINDS: dict[str, dict[str, str]] = {
    CONTROL: {},
    "metrics": METRICS,
    "drift": DRIFT,
    "prediction log": LOG,
    "prediction log, feedback store": LOG | FEEDBACK,
    EVERYTHING: METRICS | DRIFT | LOG | FEEDBACK,
    "traces of 1 %": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    "traces of 100 %": {"OTEL_TRACES_SAMPLER": "always_on"},
}
"""What is switched on, by name. Request logs have their defaults throughout."""

EXPORT_SECONDS = 6
"""Time in which a worker sends the spans that wait; OpenTelemetry's default is to send them every 5 s."""

CLIENTS = (1, 32)
BULK_ROWS = 1_000
QUIET, MAX_ATTEMPTS = 0.1, 3
"""If other processes use more processors during a pair, it is measured again: at most so many times as many pairs."""

Measure = Callable[[Server], dict[str, float]]
WORKER = "_bentoml_impl.worker.service"
"""The module that a worker runs."""


class Monitored(Project):
    """The project with some monitoring, in a folder of its own."""

    def __init__(self, folder: str, settings: dict[str, str]) -> None:
        super().__init__(has_metrics=False, settings=OFF | settings)
        self._folder = folder

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """See `Peer`; removes what an earlier run logged."""
        folder = work / "servers" / self._folder
        shutil.rmtree(folder, ignore_errors=True)
        return super().launch(model, port, work)._replace(folder=folder)


class Monitoring:
    """The measurements, with the churn forest."""

    def __init__(self, work: Path, records: Sequence[Record], plan: Plan) -> None:
        self._work = work
        self._model = load_model(work, "forest")
        self._records = records
        self._plan = plan

    def measure(self) -> dict[str, MonitoringCost]:
        """Returns the costs by kind; reports kinds that failed, and leaves them out."""
        found: dict[str, MonitoringCost] = {}
        for name, settings in KINDS.items():
            say(f"\nmonitoring: {name}")
            try:
                found[name] = self._measure(settings)
            except BenchmarkFailure as failure:
                say(f"  FAILED: {failure.reason}\n{failure.log}")
        return found

    def _measure(self, settings: dict[str, str]) -> MonitoringCost:
        found = MonitoringCost(settings)
        off_project, on_project = Monitored("monitoring-off", {}), Monitored("monitoring-on", settings)
        requests = [off_project.request([record], self._model) for record in self._records[:N_BODIES]]
        bodies = write_bodies(self._work / "bodies.txt", requests)
        bulk = off_project.request((list(self._records) * BULK_ROWS)[:BULK_ROWS], self._model)
        with contextlib.ExitStack() as stack:
            off = stack.enter_context(started(off_project, self._model, self._work))
            collector = None
            if any(name.startswith("OTEL_") for name in settings):
                collector = stack.enter_context(Collector())
                on_project = Monitored("monitoring-on", settings | collector.variables)
            on = stack.enter_context(started(on_project, self._model, self._work))
            for server, project in ((off, off_project), (on, on_project)):
                check_answers(server, project, self._model, self._records)
                put_load(server, bodies, WARM_UP_CLIENTS, self._plan.warm_up_seconds)
            n_requests = 0
            for clients in CLIENTS:
                n_before = settled(collector) if collector else 0
                n_requests = self._load(off, on, bodies, clients, found)
                if collector:
                    # wrk does not count the requests in flight at its end; the service does.
                    found.spans_received = min(1.0, (settled(collector) - n_before) / n_requests)
            found.private_mb = off.private_mb(), on.private_mb()
            self._bulk(off, on, bulk, found)
        say(f"  other processes used up to {found.other_processes:.2f} processors")
        for measure, pairs in found.pairs.items():
            say(f"  {measure}: {pairs.ratio:.3f}x of {statistics.median(pairs.off):,.4g}")
        return found

    def _pair(self, off: Server, on: Server, measure: Measure, found: MonitoringCost) -> None:
        """Measures both servers in turn; keeps the pairs that other processes have disturbed least."""
        pairs: list[tuple[float, dict[str, float], dict[str, float]]] = []
        while len(pairs) < self._plan.pairs * MAX_ATTEMPTS:
            values: dict[bool, dict[str, float]] = {}
            disturbance = 0.0
            for is_on in (False, True) if len(pairs) % 2 == 0 else (True, False):
                server, waiting = (on, off) if is_on else (off, on)
                with waiting.paused():
                    others = OtherProcesses(server)
                    values[is_on] = measure(server)
                    disturbance = max(disturbance, others.share())
            pairs.append((disturbance, values[False], values[True]))
            if sum(pair[0] <= QUIET for pair in pairs) >= self._plan.pairs:
                break
        chosen = sorted(pairs, key=lambda pair: pair[0])[: self._plan.pairs]
        for name in chosen[0][1]:
            found.pairs[name] = Pairs(
                [one[name] for _, one, _ in chosen], [one[name] for _, _, one in chosen]
            )
        found.other_processes = round(max(found.other_processes, chosen[-1][0]), 2)

    def _load(self, off: Server, on: Server, bodies: Bodies, clients: int, found: MonitoringCost) -> int:
        """Measures requests of one row; returns how many `on` answered."""
        noun = "client" if clients == 1 else "clients"
        n_requests = 0

        def measure(server: Server) -> dict[str, float]:
            nonlocal n_requests
            worker_seconds = server.cpu_seconds(WORKER)
            load = put_load(server, bodies, clients, self._plan.pair_seconds)
            worker_seconds = server.cpu_seconds(WORKER) - worker_seconds
            if load.failed:
                raise server.failure(f"{load.failed:,} of {load.requests:,} requests failed")
            n_requests += load.requests * (server is on)
            return {
                f"{clients} {noun}: requests/s": load.requests_per_second,
                f"{clients} {noun}: p50 ms": load.p50_ms,
                f"{clients} {noun}: worker's CPU ms/request": round(worker_seconds / load.requests * 1e3, 4),
                f"{clients} {noun}: CPU ms/request": load.cpu_ms_per_request,
            }

        self._pair(off, on, measure, found)
        return n_requests

    def _bulk(self, off: Server, on: Server, request: Request, found: MonitoringCost) -> None:
        """Measures requests of many rows, from one client."""

        def measure(server: Server) -> dict[str, float]:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_SECONDS)
            with contextlib.closing(connection):
                times = repeat(lambda: exchange(connection, request), self._plan.pair_seconds)
            return {f"{BULK_ROWS:,} rows: rows/s": round(BULK_ROWS * len(times) / sum(times))}

        self._pair(off, on, measure, found)


def settled(collector: Collector) -> int:
    """Returns the requests whose spans have come, those that still waited included."""
    time.sleep(EXPORT_SECONDS)
    return collector.n_requests


def worker_mb(cost: MonitoringCost) -> float | None:
    """Returns how much more private memory a worker has."""
    if cost.private_mb is None:
        return None
    off, on = cost.private_mb
    return on[WORKER] - off[WORKER]


def companions_mb(cost: MonitoringCost) -> float | None:
    """Returns the private memory of the processes beside the workers that monitoring starts."""
    if cost.private_mb is None:
        return None
    return sum(mb for name, mb in cost.private_mb[1].items() if name.startswith("serving.monitoring."))
