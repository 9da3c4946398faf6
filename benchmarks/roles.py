"""Measures what a challenger and a shadow cost the champion's callers: the same load on services with and without.

    .venv/bin/python -m benchmarks.roles
    .venv/bin/python -m benchmarks.roles --model native --rounds 2

Uses the registry of `make bench`, and creates it if missing. Challenger and shadow are the champion's files under other
version numbers, so they cost the same. The services run side by side and are loaded in turn. Prints the medians of the
rounds as a table.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.__main__ import prepare_registry
from benchmarks.failures import BenchmarkFailure
from benchmarks.load import find_wrk, put_load, write_bodies
from benchmarks.measuring import N_BODIES, WARM_UP_CLIENTS, say, started
from benchmarks.peers.project import Project
from benchmarks.places import TELCO, WORK
from benchmarks.processes import Server
from benchmarks.registry import tracking_uri
from benchmarks.results import Load
from benchmarks.rows import load_model, load_records

SETTINGS: dict[str, dict[str, str]] = {
    "champion alone": {},
    "challenger, 50 %": {"SERVING_CHALLENGER_ALIAS": "challenger", "SERVING_CHALLENGER_PERCENT": "50"},
    "shadow, 10 %": {"SERVING_SHADOW_ALIAS": "shadow", "SERVING_SHADOW_PERCENT": "10"},
    "shadow, 100 %": {"SERVING_SHADOW_ALIAS": "shadow"},
}
CLIENTS = (1, 32)
ROLES_TIMEOUT_SECONDS = 60


def main() -> int:
    """Runs the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.roles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="forest", choices=("forest", "linear", "native"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="duration of each load (%(default)s)")
    options = parser.parse_args()
    try:
        find_wrk()
        prepare_registry(TELCO if TELCO.is_file() else None, "Churn", with_growth=False)
        add_aliases(options.model)
        print(to_table(measure(options.model, options.rounds, options.seconds)))
    except BenchmarkFailure as failure:
        print(f"benchmarks.roles: {failure.reason}\n{failure.log}".strip(), file=sys.stderr)
        return 2
    return 0


def add_aliases(name: str) -> None:
    """Registers the champion's files under two more numbers, for the challenger and the shadow."""
    from scripts.lifecycle.connection import connect
    from serving.settings import load_settings

    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(WORK)
    client = connect(load_settings())
    model = client.get_registered_model(name)
    champion = client.get_model_version(name, str(model.aliases["production"]))
    for alias in ("challenger", "shadow"):
        if alias not in model.aliases:
            assert champion.source is not None
            copy = client.create_model_version(name, champion.source, champion.run_id, tags=champion.tags)
            client.set_registered_model_alias(name, alias, str(copy.version))


def measure(name: str, n_rounds: int, seconds: int) -> dict[tuple[str, int], list[Load]]:
    """Returns the loads of each setting and number of clients."""
    model = load_model(WORK, name)
    records = load_records(WORK / "rows.parquet")[:N_BODIES]
    found: dict[tuple[str, int], list[Load]] = {(what, n): [] for n in CLIENTS for what in SETTINGS}
    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for what, settings in SETTINGS.items():
            project = Project(has_metrics=True, settings=settings)
            server = servers[what] = stack.enter_context(started(project, model, WORK))
            wait_for(lambda s=server, n=1 + bool(settings): len(roles(s)) == n, what)  # type: ignore[misc]
            bodies = write_bodies(
                WORK / "bodies.txt", [project.request([record], model) for record in records]
            )
            put_load(server, bodies, WARM_UP_CLIENTS, 1)
        for n in range(n_rounds):
            say(f"round {n + 1} of {n_rounds}")
            for (what, clients), loads in found.items():
                loads.append(put_load(servers[what], bodies, clients, seconds))
    return found


def roles(server: Server) -> list[str]:
    """Returns the loaded roles."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models")
        return [model["role"] for model in json.loads(connection.getresponse().read())["models"]]


def wait_for(claim: Callable[[], bool], what: str) -> None:
    """Waits until the claim holds.

    Raises:
        BenchmarkFailure: it does not within `ROLES_TIMEOUT_SECONDS`.
    """
    give_up = time.monotonic() + ROLES_TIMEOUT_SECONDS
    while not claim():
        if time.monotonic() > give_up:
            raise BenchmarkFailure(f"{what}: the models are not loaded after {ROLES_TIMEOUT_SECONDS} s")
        time.sleep(0.2)


def to_table(found: dict[tuple[str, int], list[Load]]) -> str:
    """Returns a Markdown table of the medians."""
    lines = [
        "| clients | service | p50 ms | p99 ms | requests/s | CPU ms | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for (what, clients), loads in found.items():
        p50, p99, rate, cpu = (
            statistics.median(getattr(load, field) for load in loads)
            for field in ("p50_ms", "p99_ms", "requests_per_second", "cpu_ms_per_request")
        )
        failed = sum(load.non_2xx + load.socket_errors for load in loads)
        lines.append(f"| {clients} | {what} | {p50:.3f} | {p99:.3f} | {rate:,.0f} | {cpu:.3f} | {failed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
