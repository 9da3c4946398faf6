"""`benchmarks`: what its verdicts and latencies mean. Nothing is timed here."""

import contextlib
import http.client
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.collector import Collector
from benchmarks.load import measured_latencies, percentile
from benchmarks.monitoring import CONTROL, EVERYTHING, WORKER, companions_mb
from benchmarks.report import to_markdown
from benchmarks.results import (
    Bulk,
    InProcess,
    Load,
    Memory,
    ModelRun,
    MonitoringCost,
    Pairs,
    Results,
    ServerRun,
)
from benchmarks.targets import judge, judge_monitoring


def corrected(latencies: dict[int, int], interval: int) -> dict[int, int]:
    """What wrk makes of the latencies it measured (`stats_correct`)."""
    out = Counter(latencies)
    for latency in range(2 * interval, max(latencies) + 1):
        for omitted in range(latency - interval, interval, -interval):
            out[omitted] += latencies.get(latency, 0)
    return {latency: count for latency, count in out.items() if count}


@given(st.dictionaries(st.integers(1, 400), st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 200))
def test_what_wrk_adds_to_the_latencies_is_taken_out_again(latencies, interval):
    requests = sum(latencies.values())
    duration = interval * requests + requests - 1  # of one client

    assert measured_latencies(corrected(latencies, interval), duration, requests, 1) == latencies


def test_percentiles_are_latencies_that_there_were():
    counts = {10: 98, 20: 1, 500: 1}
    assert [percentile(counts, share) for share in (0.5, 0.98, 0.99, 1.0)] == [10, 10, 20, 500]


def load(rate: float, p50: float, **changes: Any) -> Load:
    fields: dict[str, Any] = {
        "clients": 32, "seconds": 8.0, "requests": int(rate * 8), "non_2xx": 0, "socket_errors": 0,
        "requests_per_second": rate, "p50_ms": p50, "p99_ms": 3 * p50, "wrk_p99_ms": 4 * p50,
        "cpu_ms_per_request": 1.0,
    }  # fmt: skip
    return Load(**fields | changes)


def server(kind: str, rate: float, p50: float, memory: float, start: float, **changes: Any) -> ServerRun:
    run = ModelRun(
        start_seconds=start,
        first_start_seconds=start,
        loads={
            "clients-1": load(rate / 2, p50),
            "clients-32": load(rate, 10 * p50, **changes),
            "clients-256": load(rate, 50 * p50, clients=256, p99_ms=2 * 256 / rate * 1e3),
        },
        bulks={
            f"rows-10000-{form}": Bulk(10_000, form, milliseconds, 1.0, 5, 1)
            for form, milliseconds in (("json", 110 + 10 * p50), ("npy", 114.0), ("arrow", 116.0))
        },
        memory=Memory(memory, memory, [memory]),
    )
    return ServerRun(kind, kind, "", models={"forest": run, "native": run})


def results(**changes: Any) -> Results:
    servers = {
        "project": server("project", 5_000, 0.4, 100, 2, **changes),
        "mlflow": server("peer", 100, 9.0, 400, 12),
        "litserve": server("peer", 900, 8.4, 260, 7),
        "shedder": server("peer", 4_000, 8.5, 300, 8, non_2xx=4_000),
        "asgi-echo": server("floor", 20_000, 0.1, 40, 1),
        "fastapi-echo": server("floor", 9_000, 0.2, 60, 1),
    }
    in_process = {"forest": InProcess({"10000": 100.0}, {})}
    return Results(
        "", {}, "", {}, servers, in_process, {CONTROL: cost([1000.0], 100), EVERYTHING: monitored()}
    )


def cost(on: list[float], worker_mb: float, **companions: float) -> MonitoringCost:
    pairs = {
        f"{clients}: requests/s": Pairs([1000.0, 2000.0, 500.0][: len(on)], on)
        for clients in ("1 client", "32 clients")
    }
    return MonitoringCost({}, pairs, ({WORKER: 100.0}, {WORKER: worker_mb, "": 88.0, **companions}))


def monitored(on: tuple[float, ...] = (900.0, 1920.0, 500.0), worker_mb: float = 119.5) -> MonitoringCost:
    companions = {"serving.monitoring.prediction_log": 15.0, "serving.monitoring.feedback": 27.0}
    return cost(list(on), worker_mb, **companions)


def verdicts(found: Results) -> dict[tuple[str, str], bool | None]:
    return {(v.what, v.target): v.met for v in judge(found)}


def test_verdicts_are_what_the_numbers_say():
    told = verdicts(results())

    assert told["1 client, 1 row, JSON: p50", "≥ 20x lower than the best peer's"] is True  # 8.4 / 0.4 = 21
    assert told["1 client, 1 row, JSON: p50", "≤ 4x the raw ASGI echo's"] is True  # 4.0
    assert told["1 client, 1 row, JSON: p99", "≤ 5x p50"] is True  # 3
    assert told["32 clients: requests/s", "≥ 5x the best peer's"] is True  # 5.6; the shedder does not count
    assert told["32 clients: requests/s", "≥ 35x mlflow models serve's"] is True  # 50
    assert told["256 clients: p99", "≤ 3x clients / throughput"] is True  # 2
    assert told["10,000 rows, .npy", "≤ 1.15x predict_proba in process"] is True  # 1.14
    assert told["10,000 rows, Arrow", "≤ 1.15x predict_proba in process"] is False  # 1.16
    # 114 - 100 against (200 - 100) / 3
    assert told["10,000 rows, JSON: time over in process", "≤ 1/3 of mlflow models serve's"] is True
    assert told["start with a prepared model", "≥ 3x faster than the best peer"] is True  # 3.5
    assert told["memory, largest process", "≥ 2.5x less than the best peer"] is True  # 2.6
    # 0.9, 0.96 and 1: the median of the ratios, not the ratio of the medians or means, which is below 0.95.
    assert told["monitoring, 32 clients: requests/s", "≥ 0.95x of no monitoring"] is True
    assert told["monitoring: memory of a worker", "≤ 20 MB more"] is True  # 19.5
    assert None not in told.values()


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"on": (960.0, 1880.0, 470.0)}, [False, False, True]),  # 0.96, 0.94, 0.94
        ({"worker_mb": 120.5}, [True, True, False]),
    ],
)
def test_monitoring_that_costs_too_much_misses_its_target(changes: dict[str, Any], met: list[bool]):
    found = Results("", {}, "", {}, monitoring={EVERYTHING: monitored(**changes)})
    assert [verdict.met for verdict in judge_monitoring(found)] == met


def test_the_report_has_each_kind_of_monitoring_beside_the_control():
    machine = {
        "processor": "",
        "cores": "2",
        "memory": "",
        "kernel": "",
        "system": "",
        "python": "",
        "wrk": "",
    }
    report = to_markdown(msgspec.structs.replace(results(), machine={**machine, "commit": ""}))
    lines = {line.split("|")[1].strip(): line for line in report.splitlines() if line.startswith("|")}
    cells = [cell.strip() for cell in lines[EVERYTHING].split("|")[2:-1]]
    assert cells == ["0.960x", "0.960x", "+19.5", "42.0", "–"]
    assert "1.000x" in lines[CONTROL]


def test_only_processes_that_monitoring_starts_are_companions():
    assert companions_mb(monitored()) == 42.0
    assert companions_mb(MonitoringCost({})) is None


def test_the_collector_counts_the_requests_of_an_export():
    spans = b"..POST /v1/predict..decode..queue..POST /v1/predict.."
    with Collector() as collector:
        address = collector.variables["OTEL_EXPORTER_OTLP_ENDPOINT"].removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=10)
        with contextlib.closing(connection):
            for _ in range(2):
                connection.request("POST", "/v1/traces", spans)
                assert connection.getresponse().read() == b""
        assert collector.n_requests == 4


@pytest.mark.parametrize("failed", [{"non_2xx": 1}, {"socket_errors": 1}])
def test_one_request_that_failed_misses_the_target(failed: dict[str, int]):
    assert verdicts(results(**failed))["native-only model, 32 clients: failed requests", "none"] is False


def test_what_was_not_measured_is_neither_met_nor_missed():
    assert set(verdicts(Results("", {}, "", {})).values()) == {None}
