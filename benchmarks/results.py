"""The results of a run; also the schema of `results/latest.json`."""

import statistics
from typing import Any

from msgspec import Struct, field


class Load(Struct):
    """Concurrent clients that send single rows for some seconds. Source of the latencies: `load`."""

    clients: int
    seconds: float
    requests: int
    """Answers of any status."""
    non_2xx: int
    socket_errors: int
    """Failed connections, reads and writes, and answers that exceeded wrk's timeout."""
    requests_per_second: float
    """Of answers with status 2xx only."""
    p50_ms: float
    p99_ms: float
    wrk_p99_ms: float
    """As wrk prints it: with its estimates for requests that a slow answer delayed."""
    cpu_ms_per_request: float
    """Of all processes of the server."""

    @property
    def failed(self) -> int:
        """Requests without a successful answer."""
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
    """The sum over its processes; shared pages count in each."""
    largest_process_mb: float
    processes_mb: list[float]
    """Each process, largest first."""


class ModelRun(Struct):
    """One server with one model."""

    start_seconds: float
    """From the command to the first "ready"; this project's with an already prepared model. Median."""
    starts_seconds: list[float] = field(default_factory=list)
    first_start_seconds: float | None = None
    """This project only: with an empty model store, including preparation."""
    runtime: str | None = None
    """This project only: from `/v1/models`."""
    loads: dict[str, Load] = field(default_factory=dict)
    bulks: dict[str, Bulk] = field(default_factory=dict)
    memory: Memory | None = None
    """After the cases with clients."""
    memory_after_bulk: Memory | None = None
    """Also after the cases with many rows; this project's include `.npy` and Arrow."""


class Failure(Struct):
    """What could not be measured, and why."""

    what: str
    reason: str
    log: str = ""


class ServerRun(Struct):
    """One server with all its models."""

    name: str
    kind: str
    """`project`, `peer` or `floor`."""
    note: str
    versions: dict[str, str] = field(default_factory=dict)
    models: dict[str, ModelRun] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


class InProcess(Struct):
    """`predict_proba` in a separate process without a server: median milliseconds by number of rows."""

    median_ms: dict[str, float]
    repeats: dict[str, int]


class GrowthPoint(Struct):
    """This project's cost at one size."""

    size: int
    measures: dict[str, float]
    runtime: str | None = None


class Pairs(Struct):
    """A measure of the service without monitoring and with some of it, in turn."""

    off: list[float]
    on: list[float]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios: on / off."""
        return statistics.median(on / off for off, on in zip(self.off, self.on, strict=True))


class MonitoringCost(Struct):
    """What some monitoring costs."""

    settings: dict[str, str]
    """In addition to those that switch everything off."""
    pairs: dict[str, Pairs] = field(default_factory=dict)
    """By measure."""
    private_mb: tuple[dict[str, float], dict[str, float]] | None = None
    """Memory that no other process maps, by module, without monitoring and with it; after the cases with clients."""
    other_processes: float = 0.0
    """Processors that other processes used at most during a measurement."""
    spans_received: float | None = None
    """Traces only: share of the requests of 32 clients whose spans reached the collector."""


class Verdict(Struct):
    """A target, and whether it was met."""

    what: str
    target: str
    measured: str
    met: bool | None
    """None if a measurement for the comparison is missing."""


class Results(Struct):
    """A whole run."""

    measured_at: str
    machine: dict[str, str]
    data: str
    options: dict[str, Any]
    servers: dict[str, ServerRun] = field(default_factory=dict)
    in_process: dict[str, InProcess] = field(default_factory=dict)
    monitoring: dict[str, MonitoringCost] = field(default_factory=dict)
    growth: dict[str, list[GrowthPoint]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
