"""What a run finds out; also the form of `results/latest.json`."""

from typing import Any

from msgspec import Struct, field


class Load(Struct):
    """Clients that each send one row after the other for some seconds. Source of the latencies: `load`."""

    clients: int
    seconds: float
    requests: int
    """Answers of any status."""
    non_2xx: int
    socket_errors: int
    """Connections that could not be made, read or written, and answers that took longer than wrk waits."""
    requests_per_second: float
    """Of answers with status 2xx only."""
    p50_ms: float
    p99_ms: float
    wrk_p99_ms: float
    """As wrk itself prints it: with its estimate of the requests that a slow answer kept from being sent."""
    cpu_ms_per_request: float
    """Of all processes of the server."""

    @property
    def failed(self) -> int:
        """Requests without an answer that is worth anything."""
        return self.non_2xx + self.socket_errors


class Bulk(Struct):
    """Requests of many rows from one client, one after the other."""

    rows: int
    form: str
    """`json`, `npy` or `arrow`."""
    median_ms: float
    fastest_ms: float
    repeats: int
    body_bytes: int


class Memory(Struct):
    """Resident memory of a server after the load, in MB of 10^6 bytes."""

    all_processes_mb: float
    """The sum over its processes; pages that they share count in each."""
    largest_process_mb: float
    processes_mb: list[float]
    """Each of them, largest first."""


class ModelRun(Struct):
    """One server with one model."""

    start_seconds: float
    """From the command to the first "ready"; this project's with a model that it has prepared before. Median."""
    starts_seconds: list[float] = field(default_factory=list)
    first_start_seconds: float | None = None
    """This project only: with an empty model store, so that it is prepared first."""
    runtime: str | None = None
    """This project only: what `/v1/models` says."""
    loads: dict[str, Load] = field(default_factory=dict)
    bulks: dict[str, Bulk] = field(default_factory=dict)
    memory: Memory | None = None
    """After the cases with clients."""
    memory_after_bulk: Memory | None = None
    """After the cases with many rows, too; this project's with `.npy` and Arrow among them."""


class Failure(Struct):
    """What could not be measured, and why."""

    what: str
    reason: str
    log: str = ""


class ServerRun(Struct):
    """One server with all the models it was measured with."""

    name: str
    kind: str
    """`project`, `peer` or `floor`."""
    note: str
    versions: dict[str, str] = field(default_factory=dict)
    models: dict[str, ModelRun] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


class InProcess(Struct):
    """`predict_proba` in a process of its own, without any server: median milliseconds by number of rows."""

    median_ms: dict[str, float]
    repeats: dict[str, int]


class GrowthPoint(Struct):
    """What this project costs at one size."""

    size: int
    measures: dict[str, float]
    runtime: str | None = None


class Verdict(Struct):
    """A target, and whether it was met."""

    what: str
    target: str
    measured: str
    met: bool | None
    """None where something that it is compared with was not measured."""


class Results(Struct):
    """A whole run."""

    measured_at: str
    machine: dict[str, str]
    data: str
    options: dict[str, Any]
    servers: dict[str, ServerRun] = field(default_factory=dict)
    in_process: dict[str, InProcess] = field(default_factory=dict)
    growth: dict[str, list[GrowthPoint]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
