"""Starts, checks, loads, measures and stops one server after the other."""

import contextlib
import http.client
import json
import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bulk import time_bulk
from benchmarks.cases import CLIENTS, ROWS, Plan
from benchmarks.correctness import check_answers
from benchmarks.environments import installed_versions
from benchmarks.failures import BenchmarkFailure, EndedEarly
from benchmarks.inprocess import pool, time_in_process
from benchmarks.load import put_load, write_bodies
from benchmarks.peers.project import Project, runtime_of
from benchmarks.peers.protocol import Peer
from benchmarks.places import PROJECT_BIN, ROOT
from benchmarks.processes import Server, free_port, running
from benchmarks.results import Failure, InProcess, ModelRun, ServerRun
from benchmarks.rows import Model, Record

N_BODIES = 1_000
"""Different rows to send in turn."""

WARM_UP_CLIENTS = 8

SHOWN_PACKAGES = (
    *("bentoml", "mlflow", "mlflow-skinny", "mlserver", "mlserver-mlflow", "litserve", "fastapi"),
    *("starlette", "uvicorn", "uvloop", "httptools", "pydantic", "msgspec", "orjson"),
    *("scikit-learn", "numpy", "pandas", "scipy", "pyarrow", "skops", "joblib", "onnxruntime", "treelite"),
)
"""Packages whose versions the report shows."""

LIBRARIES = ("scikit-learn", "numpy", "pandas", "scipy")
"""Numerical packages: servers with different versions of these cannot be compared."""


def say(line: str) -> None:
    """Prints a line of progress."""
    print(line, flush=True)


class Measuring:
    """Measures servers with the same rows, work folder and plan."""

    def __init__(self, work: Path, records: Sequence[Record], plan: Plan) -> None:
        self.work = work
        self.records = records
        self.plan = plan
        self.in_process: dict[str, InProcess] = {}

    def measure(self, peer: Peer, models: Sequence[Model]) -> ServerRun:
        """Returns the measurements of a server, including its failures; raises nothing."""
        say(f"\n{peer.name} ({peer.note})")
        run = ServerRun(peer.name, peer.kind, peer.note)
        with noting(run, "environment"):
            run.versions = versions_of(peer.environment())
            for model in models if peer.kind != "floor" else models[:1]:
                with noting(run, model.name):
                    self._measure_model(peer, model, run, is_first=model is models[0])
        return run

    def _measure_model(self, peer: Peer, model: Model, run: ServerRun, is_first: bool) -> None:
        cases = self.plan.cases_of(model.name)
        row_counts = [ROWS[case] for case in cases if case in ROWS]
        is_compared = bool(row_counts) and peer.key == "project"
        before = self._time_in_process(model, row_counts) if is_compared else {}
        found = ModelRun(start_seconds=0)
        if isinstance(peer, Project):
            shutil.rmtree(peer.store(model, self.work), ignore_errors=True)
            with started(peer, model, self.work) as server:
                found.first_start_seconds = round(server.start_seconds, 2)
        for _ in range(self.plan.starts - 1 if is_first else 0):
            with started(peer, model, self.work) as server:
                found.starts_seconds.append(round(server.start_seconds, 2))
        with started(peer, model, self.work) as server:
            found.starts_seconds.append(round(server.start_seconds, 2))
            found.start_seconds = statistics.median(found.starts_seconds)
            if isinstance(peer, Project):
                found.runtime = get_runtime(server)
            say(f"  {model.name}: ready after {found.start_seconds:.2f} s" + serves_with(found.runtime))
            check_answers(server, peer, model, self.records)
            run.models[model.name] = found
            self._load(server, peer, model, run)
        if is_compared:
            # Before and after, so that a machine that slows down affects both.
            after = self._time_in_process(model, row_counts)
            self.in_process[model.name] = pool(before, after)
            for rows, median_ms in self.in_process[model.name].median_ms.items():
                say(f"    in process, {int(rows):,} rows: {median_ms:.2f} ms")

    def _time_in_process(self, model: Model, row_counts: list[int]) -> dict[str, list[float]]:
        file = self.work / "rows.parquet"
        return time_in_process(model.folder / "mlflow", file, row_counts, self.plan.bulk_seconds)

    def _load(self, server: Server, peer: Peer, model: Model, run: ServerRun) -> None:
        found, cases = run.models[model.name], self.plan.cases_of(model.name)
        requests = [peer.request([record], model) for record in self.records[:N_BODIES]]
        bodies = write_bodies(self.work / "bodies.txt", requests)
        put_load(server, bodies, WARM_UP_CLIENTS, self.plan.warm_up_seconds)
        for case in (case for case in cases if case in CLIENTS):
            is_crowd = CLIENTS[case] > 32 and peer.kind == "project"
            seconds = self.plan.crowd_seconds if is_crowd else self.plan.seconds
            with noting(run, f"{model.name}, {case}"):
                load = put_load(server, bodies, CLIENTS[case], seconds)
                found.loads[case] = load
                failed = f", {load.failed:,} failed" if load.failed else ""
                say(
                    f"    {CLIENTS[case]:3} clients: {load.requests_per_second:9,.1f} requests/s, "
                    f"p50 {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms, "
                    f"CPU {load.cpu_ms_per_request:.3f} ms/request{failed}"
                )
        found.memory = server.memory()
        say(
            f"    memory: {found.memory.largest_process_mb:.0f} MB in the largest of "
            f"{len(found.memory.processes_mb)} processes, {found.memory.all_processes_mb:.0f} MB in all"
        )
        for case in (case for case in cases if case in ROWS):
            for form in peer.forms:
                with noting(run, f"{model.name}, {case} as {form}"):
                    request = peer.request(self.records[: ROWS[case]], model, form)
                    bulk = time_bulk(server, request, ROWS[case], form, self.plan.bulk_seconds)
                    found.bulks[f"{case}-{form}"] = bulk
                    say(f"    {bulk.rows:,} rows as {form}: {bulk.median_ms:.2f} ms")
        found.memory_after_bulk = server.memory()


def serves_with(runtime: str | None) -> str:
    """Returns the runtime as the end of a line."""
    return f", runtime {runtime}" if runtime else ""


@contextlib.contextmanager
def noting(run: ServerRun, what: str) -> Iterator[None]:
    """Records a failure in the results, and continues after the block."""
    try:
        yield
    except BenchmarkFailure as failure:
        # Remove paths of this machine from the server's output.
        log = failure.log.replace(str(ROOT), ".")
        run.failures.append(Failure(what, failure.reason, log))
        say(f"  FAILED: {what}: {failure.reason}")
        for line in log.splitlines():
            say(f"    | {line}")


@contextlib.contextmanager
def started(peer: Peer, model: Model, work: Path) -> Iterator[Server]:
    """Runs a server; retries once if it exits before it is ready.

    BentoML picks free ports for its process manager and binds them later. If another process takes one
    meanwhile, BentoML exits; starting again helps.

    Raises:
        BenchmarkFailure: it did not become ready.
    """
    with contextlib.ExitStack() as stack:
        port = free_port()
        try:
            server = stack.enter_context(running(peer.launch(model, port, work), port))
        except EndedEarly as failure:
            say(f"  it did not start ({failure.reason}); retrying")
            port = free_port()
            server = stack.enter_context(running(peer.launch(model, port, work), port))
        yield server


def get_runtime(server: Server) -> str:
    """Returns the runtime in this project's `/v1/models`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/v1/models")
        return runtime_of(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


def versions_of(bin_folder: Path) -> dict[str, str]:
    """Returns the versions for the report; warns if a numerical library differs from the project's."""
    versions = installed_versions(bin_folder)
    ours = installed_versions(PROJECT_BIN)
    for name in LIBRARIES:
        if name in versions and versions[name] != ours[name]:
            say(f"  note: {name} {versions[name]} here, {ours[name]} in the project")
    return {name: versions[name] for name in SHOWN_PACKAGES if name in versions}
