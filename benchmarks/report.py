"""The results as Markdown tables, also printed at the end of a run."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.cases import CASES_OF_MODEL
from benchmarks.monitoring import companions_mb, worker_mb
from benchmarks.results import Bulk, GrowthPoint, Load, Memory, ModelRun, Results, ServerRun
from benchmarks.targets import MAX_FAILED_RATIO

FORMS = {"json": "JSON", "npy": ".npy", "arrow": "Arrow"}
MODELS = {
    "forest": "Churn pipeline, random forest of 100 trees",
    "linear": "Churn pipeline, logistic regression",
    "native": "Churn pipeline with a custom transformer, random forest of 100 trees",
}


def to_markdown(results: Results) -> str:
    """Returns the whole report."""
    parts = [
        "# Benchmark",
        _head(results),
        *(["## Targets", _verdicts(results)] if results.verdicts else []),
        *(part for model in CASES_OF_MODEL for part in _model(results, model)),
        *_failures(results),
        *_monitoring(results),
        *_growth(results),
        *(["## What was measured", _versions(results)] if results.servers else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with aligned columns; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _head(results: Results) -> str:
    machine = results.machine
    return (
        f"{results.measured_at}, {machine['processor']}, {machine['cores']} cores, {machine['memory']}, "
        f"{machine['kernel']}, {machine['system']}, Python {machine['python']}, {machine['wrk']}, "
        f"commit {machine['commit'] or 'unknown'}.\n"
        f"Data: {results.data}. One worker each, load from the same machine: compare figures with their "
        "neighbours; absolute values depend on the machine."
    )


def _verdicts(results: Results) -> str:
    words = {True: "met", False: "**missed**", None: "–"}
    rows = [[v.what, v.target, v.measured, words[v.met]] for v in results.verdicts]
    return table([["what", "target", "measured", "verdict"], *rows])


def _model(results: Results, model: str) -> list[str]:
    servers = [server for server in results.servers.values() if model in server.models]
    if not servers:
        return []
    parts = [f"## {MODELS[model]}"]
    runtime = next((s.models[model].runtime for s in servers if s.models[model].runtime), None)
    if runtime:
        parts.append(f"This project serves it with the runtime `{runtime}`.")
    parts.append(_loads(servers, model))
    parts.append(_bulks(results, servers, model))
    parts.append(_ratios(servers, model))
    return parts


def _loads(servers: Sequence[ServerRun], model: str) -> str:
    """One row per server: one client, 32, 256, start, memory."""
    head = ["server", "1 client: p50 / p99 ms", "32 clients: requests/s", "p99 ms", "CPU ms/request"]
    head += ["256 clients: requests/s", "p99 ms", "start s", "memory MB: largest / all"]
    head += ["after many rows", "failed"]
    rows = [head]
    for server in servers:
        run = server.models[model]
        one, many, crowd = (run.loads.get(f"clients-{n}") for n in (1, 32, 256))
        rows.append(
            [
                server.name,
                f"{one.p50_ms:.3g} / {one.p99_ms:.3g}" if one else "–",
                f"{many.requests_per_second:,.0f}" if many else "–",
                f"{many.p99_ms:,.1f}" if many else "–",
                f"{many.cpu_ms_per_request:.3g}" if many else "–",
                f"{crowd.requests_per_second:,.0f}" if crowd else "–",
                f"{crowd.p99_ms:,.0f}" if crowd else "–",
                _start(run),
                _memory(run.memory),
                _memory(run.memory_after_bulk if run.bulks else None),
                _failed(run),
            ]
        )
    return table(rows)


def _memory(memory: Memory | None) -> str:
    return f"{memory.largest_process_mb:.0f} / {memory.all_processes_mb:.0f}" if memory else "–"


def _start(run: ModelRun) -> str:
    first = f" (first {run.first_start_seconds:.1f})" if run.first_start_seconds else ""
    return f"{run.start_seconds:.1f}{first}"


def _failed(run: ModelRun) -> str:
    failed = [f"{load.failed:,} at {load.clients}" for load in run.loads.values() if load.failed]
    return ", ".join(failed) or "0"


def _bulks(results: Results, servers: Sequence[ServerRun], model: str) -> str:
    """Milliseconds of requests with many rows."""
    counts = sorted({bulk.rows for server in servers for bulk in server.models[model].bulks.values()})
    if not counts:
        return ""
    rows = [["1 client: median ms of", *(f"{n:,} rows" for n in counts)]]
    in_process = results.in_process.get(model)
    if in_process:
        found = [in_process.median_ms.get(str(n)) for n in counts]
        rows.append(["predict_proba in process", *(f"{ms:,.1f}" if ms else "–" for ms in found)])
    for server in servers:
        bulks = server.models[model].bulks.values()
        for form in dict.fromkeys(bulk.form for bulk in bulks):
            by_rows: dict[int, Bulk] = {bulk.rows: bulk for bulk in bulks if bulk.form == form}
            cells = [f"{by_rows[n].median_ms:,.1f}" if n in by_rows else "–" for n in counts]
            rows.append([f"{server.name}, {FORMS[form]}", *cells])
    return table(rows)


def _ratios(servers: Sequence[ServerRun], model: str) -> str:
    """This project's ratios to the best peer and to the floors."""
    runs = {server.name: server.models[model] for server in servers}
    ours = next((s.models[model] for s in servers if s.kind == "project"), None)
    if ours is None or all(server.kind == "project" for server in servers):
        return ""
    measures: dict[str, Callable[[Load], float]] = {
        "p50 ms": lambda load: load.p50_ms,
        "p99 ms": lambda load: load.p99_ms,
        "requests/s": lambda load: load.requests_per_second,
        "CPU ms/request": lambda load: load.cpu_ms_per_request,
    }
    floors = [server.name for server in servers if server.kind == "floor"]
    rows = [["this project's, as a multiple of", "the best peer's", *(f"the {name}'s" for name in floors)]]
    for case, our_load in ours.loads.items():
        sound = {
            server.name: load
            for server in servers
            if server.kind == "peer"
            and (load := server.models[model].loads.get(case)) is not None
            and load.failed <= MAX_FAILED_RATIO * load.requests
        }
        for name, measure in measures.items():
            pick = max if name == "requests/s" else min
            best = pick(sound, key=lambda key: measure(sound[key])) if sound else None
            cells = [f"{_times(measure(our_load), measure(sound[best]))} ({best})" if best else "–"]
            for floor in floors:
                load = runs[floor].loads.get(case)
                cells.append(_times(measure(our_load), measure(load)) if load else "–")
            noun = "client" if our_load.clients == 1 else "clients"
            rows.append([f"{our_load.clients} {noun}: {name}", *cells])
    return table(rows) if len(rows) > 1 else ""


def _times(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.3g}x" if theirs else "–"


def _failures(results: Results) -> list[str]:
    lines = []
    for server in results.servers.values():
        for failure in server.failures:
            lines.append(f"- {server.name}, {failure.what}: {failure.reason}")
            if failure.log:
                lines.append(
                    "\n  ```\n" + "\n".join(f"  {x}" for x in failure.log.splitlines()) + "\n  ```\n"
                )
    return ["## What failed", "\n".join(lines)] if lines else []


def _monitoring(results: Results) -> list[str]:
    """What is on against nothing on: the medians of the pairs' ratios."""
    if not results.monitoring:
        return []
    costs = results.monitoring
    measures = [
        name
        for name in next(iter(costs.values())).pairs
        if not ("CPU" in name and name.startswith("1 client"))
    ]
    rows = [["on", *measures, "worker MB", "companions MB", "spans received"]]
    rows.append(["nothing", *(_number(_off(results, name)) for name in measures), "–", "–", "–"])
    for name, cost in costs.items():
        worker, companions, spans = worker_mb(cost), companions_mb(cost), cost.spans_received
        ratios = [f"{cost.pairs[one].ratio:.3f}x" if one in cost.pairs else "–" for one in measures]
        memory = [f"{worker:+.1f}" if worker is not None else "–", f"{companions:.1f}" if companions else "–"]
        rows.append([name, *ratios, *memory, f"{spans:.1%}" if spans is not None else "–"])
    told = (
        "A service with nothing on, and one with what the row names, in turn; while one is measured, all processes of "
        "the other are suspended. Ratios are medians of the pairs, CPU is that of all processes, memory is private. "
        f"Other processes used up to {max(cost.other_processes for cost in costs.values()):.2f} processors meanwhile."
    )
    return ["## What monitoring costs", told, table(rows)]


def _off(results: Results, measure: str) -> float:
    pairs = [cost.pairs[measure] for cost in results.monitoring.values() if measure in cost.pairs]
    return statistics.median(value for one in pairs for value in one.off)


def _growth(results: Results) -> list[str]:
    return [f"## Growth with the {name}\n\n{_curve(name, c)}" for name, c in results.growth.items() if c]


def _curve(name: str, points: Sequence[GrowthPoint]) -> str:
    measures = list(points[0].measures)
    rows = [[name, *measures, "runtime"]]
    for point in points:
        cells = [_number(point.measures[measure]) for measure in measures]
        rows.append([f"{point.size:,}", *cells, point.runtime or "–"])
    return table(rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _versions(results: Results) -> str:
    lines = []
    for server in results.servers.values():
        versions = ", ".join(f"{name} {version}" for name, version in server.versions.items())
        lines.append(f"- {server.name}: {server.note}\n  ({versions})")
    return "\n".join(lines)
