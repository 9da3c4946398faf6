"""The targets, and whether a run met them. Pure functions of the results."""

from collections.abc import Callable

from benchmarks.monitoring import CONTROL, EVERYTHING, worker_mb
from benchmarks.results import Load, ModelRun, Results, ServerRun, Verdict

MAX_FAILED_RATIO = 0.01
"""A peer with a higher share of failed requests cannot be the best: errors are fast answers."""


def judge(results: Results) -> list[Verdict]:
    """Returns a verdict on each target, in the order of the table in `README.md`."""
    return [
        _quickest(results),
        _near_floor(results),
        _steady(results),
        _throughput(results, "forest", 5),
        _mlflow_throughput(results),
        _frugal(results),
        _all_answered(results, "forest", "clients-256"),
        _fair(results),
        _throughput(results, "native", 2),
        _all_answered(results, "native", "clients-32"),
        _bulk(results, "npy"),
        _bulk(results, "arrow"),
        _json_overhead(results),
        _sooner(results, "start with a prepared model", lambda run: run.start_seconds),
        _sooner(results, "first start, including preparation", lambda run: run.first_start_seconds),
        _smaller(results, "memory, largest process", largest_process_mb),
        _smaller(results, "memory, all processes", all_processes_mb),
        *judge_monitoring(results),
    ]


def judge_monitoring(results: Results) -> list[Verdict]:
    """Returns a verdict on each target of what monitoring costs."""
    return [
        _monitored_rate(results, "1 client"),
        _monitored_rate(results, "32 clients"),
        _monitored_memory(results),
    ]


def model_run(results: Results, key: str, model: str) -> ModelRun | None:
    """Returns the measurements of a server with a model."""
    server = results.servers.get(key)
    return server.models.get(model) if server else None


def load_of(results: Results, key: str, model: str, case: str) -> Load | None:
    """Returns the measurements of a server with a model in a case with clients."""
    run = model_run(results, key, model)
    return run.loads.get(case) if run else None


def best_peer(
    results: Results, model: str, measure: Callable[[ModelRun], float | None], is_more_better: bool
) -> tuple[ServerRun, float] | None:
    """Returns the peer with the best value and the value; peers without one are left out."""
    found = []
    for server in results.servers.values():
        run = server.models.get(model)
        value = measure(run) if run and server.kind == "peer" else None
        if value is not None:
            found.append((server, value))
    if not found:
        return None
    return (max if is_more_better else min)(found, key=lambda pair: pair[1])


def of_sound_load(case: str, measure: Callable[[Load], float]) -> Callable[[ModelRun], float | None]:
    """Returns a measure of a case with clients; it is None if too many requests failed."""

    def of_run(run: ModelRun) -> float | None:
        load = run.loads.get(case)
        is_sound = load is not None and load.failed <= MAX_FAILED_RATIO * load.requests
        return measure(load) if load is not None and is_sound else None

    return of_run


def largest_process_mb(run: ModelRun) -> float | None:
    """Returns the resident memory of the largest process."""
    return run.memory.largest_process_mb if run.memory else None


def all_processes_mb(run: ModelRun) -> float | None:
    """Returns the resident memory of all processes."""
    return run.memory.all_processes_mb if run.memory else None


def _missing(what: str, target: str) -> Verdict:
    return Verdict(what, target, "not measured", None)


def _quickest(results: Results) -> Verdict:
    what, target = "1 client, 1 row, JSON: p50", "≥ 20x lower than the best peer's"
    ours = load_of(results, "project", "forest", "clients-1")
    best = best_peer(results, "forest", of_sound_load("clients-1", lambda load: load.p50_ms), False)
    if ours is None or best is None:
        return _missing(what, target)
    peer, theirs = best
    ratio = theirs / ours.p50_ms
    told = f"{ours.p50_ms:.3f} ms; {peer.name} {theirs:.2f} ms: {ratio:.1f}x"
    return Verdict(what, target, told, ratio >= 20)


def _near_floor(results: Results) -> Verdict:
    what, target = "1 client, 1 row, JSON: p50", "≤ 4x the raw ASGI echo's"
    ours = load_of(results, "project", "forest", "clients-1")
    floor = load_of(results, "asgi-echo", "forest", "clients-1")
    if ours is None or floor is None:
        return _missing(what, target)
    ratio = ours.p50_ms / floor.p50_ms
    told = f"{ours.p50_ms:.3f} ms; echo {floor.p50_ms:.3f} ms: {ratio:.2f}x"
    return Verdict(what, target, told, ratio <= 4)


def _steady(results: Results) -> Verdict:
    what, target = "1 client, 1 row, JSON: p99", "≤ 5x p50"
    ours = load_of(results, "project", "forest", "clients-1")
    if ours is None:
        return _missing(what, target)
    ratio = ours.p99_ms / ours.p50_ms
    told = f"{ours.p99_ms:.3f} ms: {ratio:.2f}x (with what wrk adds: {ours.wrk_p99_ms:.3f} ms)"
    return Verdict(what, target, told, ratio <= 5)


def _throughput(results: Results, model: str, times: float) -> Verdict:
    model_told = "" if model == "forest" else f"{model}-only model, "
    what, target = f"{model_told}32 clients: requests/s", f"≥ {times:g}x the best peer's"
    ours = load_of(results, "project", model, "clients-32")
    rate = of_sound_load("clients-32", lambda load: load.requests_per_second)
    best = best_peer(results, model, rate, True)
    if ours is None or best is None:
        return _missing(what, target)
    peer, theirs = best
    ratio = ours.requests_per_second / theirs
    told = f"{ours.requests_per_second:,.0f}; {peer.name} {theirs:,.0f}: {ratio:.1f}x"
    return Verdict(what, target, told, ratio >= times)


def _mlflow_throughput(results: Results) -> Verdict:
    what, target = "32 clients: requests/s", "≥ 35x mlflow models serve's"
    ours = load_of(results, "project", "forest", "clients-32")
    theirs = load_of(results, "mlflow", "forest", "clients-32")
    if ours is None or theirs is None:
        return _missing(what, target)
    ratio = ours.requests_per_second / theirs.requests_per_second
    told = f"{ours.requests_per_second:,.0f}; {theirs.requests_per_second:,.0f}: {ratio:.1f}x"
    return Verdict(what, target, told, ratio >= 35)


def _frugal(results: Results) -> Verdict:
    what, target = "32 clients: CPU per request", "≤ 1.5x the FastAPI echo's"
    ours = load_of(results, "project", "forest", "clients-32")
    floor = load_of(results, "fastapi-echo", "forest", "clients-32")
    if ours is None or floor is None:
        return _missing(what, target)
    ratio = ours.cpu_ms_per_request / floor.cpu_ms_per_request
    told = f"{ours.cpu_ms_per_request:.3f} ms; echo {floor.cpu_ms_per_request:.3f} ms: {ratio:.2f}x"
    return Verdict(what, target, told, ratio <= 1.5)


def _all_answered(results: Results, model: str, case: str) -> Verdict:
    clients = case.removeprefix("clients-")
    model_told = "" if model == "forest" else f"{model}-only model, "
    what, target = f"{model_told}{clients} clients: failed requests", "none"
    ours = load_of(results, "project", model, case)
    if ours is None:
        return _missing(what, target)
    told = f"{ours.failed:,} of {ours.requests:,} in {ours.seconds:.0f} s"
    return Verdict(what, target, told, ours.failed == 0)


def _fair(results: Results) -> Verdict:
    what, target = "256 clients: p99", "≤ 3x clients / throughput"
    ours = load_of(results, "project", "forest", "clients-256")
    if ours is None or not ours.requests_per_second:
        return _missing(what, target)
    mean_ms = ours.clients / ours.requests_per_second * 1e3
    ratio = ours.p99_ms / mean_ms
    return Verdict(what, target, f"{ours.p99_ms:.1f} ms; {mean_ms:.1f} ms: {ratio:.2f}x", ratio <= 3)


def bulk_ms(results: Results, key: str, form: str) -> float | None:
    """Returns the median milliseconds of 10,000 rows with the forest."""
    run = model_run(results, key, "forest")
    bulk = run.bulks.get(f"rows-10000-{form}") if run else None
    return bulk.median_ms if bulk else None


def in_process_ms(results: Results) -> float | None:
    """Returns the milliseconds of `predict_proba` for 10,000 rows with the forest."""
    found = results.in_process.get("forest")
    return found.median_ms.get("10000") if found else None


def _bulk(results: Results, form: str) -> Verdict:
    name = {"npy": ".npy", "arrow": "Arrow"}[form]
    what, target = f"10,000 rows, {name}", "≤ 1.15x predict_proba in process"
    ours, model = bulk_ms(results, "project", form), in_process_ms(results)
    if ours is None or model is None:
        return _missing(what, target)
    ratio = ours / model
    return Verdict(what, target, f"{ours:.1f} ms; in process {model:.1f} ms: {ratio:.2f}x", ratio <= 1.15)


def _json_overhead(results: Results) -> Verdict:
    what, target = "10,000 rows, JSON: time over in process", "≤ 1/3 of mlflow models serve's"
    ours, theirs = bulk_ms(results, "project", "json"), bulk_ms(results, "mlflow", "json")
    model = in_process_ms(results)
    if ours is None or theirs is None or model is None:
        return _missing(what, target)
    told = f"{ours - model:+.1f} ms; mlflow {theirs - model:+.1f} ms (in process {model:.1f} ms)"
    return Verdict(what, target, told, ours - model <= (theirs - model) / 3)


def _sooner(results: Results, what: str, measure: Callable[[ModelRun], float | None]) -> Verdict:
    target = "≥ 3x faster than the best peer"
    run = model_run(results, "project", "forest")
    ours = measure(run) if run else None
    best = best_peer(results, "forest", lambda run: run.start_seconds, False)
    if ours is None or best is None:
        return _missing(what, target)
    peer, theirs = best
    ratio = theirs / ours
    return Verdict(what, target, f"{ours:.2f} s; {peer.name} {theirs:.2f} s: {ratio:.2f}x", ratio >= 3)


def _smaller(results: Results, what: str, measure: Callable[[ModelRun], float | None]) -> Verdict:
    target = "≥ 2.5x less than the best peer"
    run = model_run(results, "project", "forest")
    ours = measure(run) if run else None
    best = best_peer(results, "forest", measure, False)
    if ours is None or best is None:
        return _missing(what, target)
    peer, theirs = best
    ratio = theirs / ours
    return Verdict(what, target, f"{ours:.0f} MB; {peer.name} {theirs:.0f} MB: {ratio:.2f}x", ratio >= 2.5)


def _monitored_rate(results: Results, clients: str) -> Verdict:
    what, target = f"monitoring, {clients}: requests/s", "≥ 0.95x of no monitoring"
    control, pairs = (
        cost.pairs.get(f"{clients}: requests/s") if (cost := results.monitoring.get(kind)) else None
        for kind in (CONTROL, EVERYTHING)
    )
    if pairs is None:
        return _missing(what, target)
    told = f"{pairs.ratio:.3f}x" + (f" (control {control.ratio:.3f}x)" if control else "")
    return Verdict(what, target, told, pairs.ratio >= 0.95)


def _monitored_memory(results: Results) -> Verdict:
    what, target = "monitoring: memory of a worker", "≤ 20 MB more"
    cost = results.monitoring.get(EVERYTHING)
    more = worker_mb(cost) if cost else None
    if more is None:
        return _missing(what, target)
    return Verdict(what, target, f"{more:.1f} MB", more <= 20)
