"""Claims about behaviour: bad requests are rejected, requests are counted, and answers come in time."""

import json
import statistics
import time

from prometheus_client.parser import text_string_to_metric_families

from scripts.smoke import Broken, NotApplicable
from scripts.smoke.client import Session
from scripts.smoke.run import JSON, PAUSE_SECONDS, SmokeRun

PRIVATE = "smoke-test-value"
"""A caller's value, which no error may repeat."""

WRONG = (
    ("half a JSON body", b'{"instances": [', JSON, 400, "malformed_body"),
    ("no rows", b'{"instances": "%b"}' % PRIVATE.encode(), JSON, 422, "invalid_input"),
    ("another media type", PRIVATE.encode(), "text/x-smoke-test", 415, "unsupported_media_type"),
)
"""What is wrong with a request, the request, and its error in docs/api.md."""

N_TIMED = 20
"""Requests whose median is compared with --max-latency-ms."""

N_ROUNDS = 5
"""Attempts to reach the same pod twice: behind a proxy, each request to /metrics may reach another one."""


def errors(run: SmokeRun) -> str:
    """A bad body gets a 4xx error in the documented shape."""
    for what, body, media_type, status, code in WRONG:
        answer = run.post("/v1/predict", body, media_type, **{"X-Request-ID": "smoke-test-error"})
        if answer.status != status:
            raise Broken(f"{what}: {answer.error()}, not {status}")
        said = answer.json()
        error = said["error"]
        if error["code"] != code or not error["message"] or not isinstance(error["details"], list):
            raise Broken(f"{what}: {answer.error()}, not {code} in the documented shape")
        if said["request_id"] != "smoke-test-error":
            raise Broken(f"{what}: its request_id is not the X-Request-ID of the request")
        if PRIVATE.encode() in answer.body:
            raise Broken(f"{what}: the error repeats the caller's value")
    return ", ".join(str(status) for *_, status, _ in WRONG) + " as documented"


def counted(run: SmokeRun) -> str:
    """`/metrics` counts rows, requests and errors."""
    if run.expected.no_metrics or run.expected.v1_only:
        raise NotApplicable(
            "not asked (--no-metrics)" if run.expected.no_metrics else "not asked (--v1-only)"
        )
    n_rows = len(run.instances)
    wanted = {"model_predictions_total": n_rows, "model_prediction_latency_seconds_count": 1}
    wanted["model_prediction_errors_total"] = 1
    missing = ""
    for _ in range(N_ROUNDS):
        with run.client.session() as session:
            before = _read_counts(run, session)
            _ask_twice(run, session)
            after = _read_counts(run, session)
        grown = {name: after.get(name, 0) - before.get(name, 0) for name in wanted}
        missing = ", ".join(
            f"{name} rose by {grown[name]:g}, not {n}" for name, n in wanted.items() if grown[name] < n
        )
        if not missing:
            return f"{n_rows} rows, a request and an error, as sent"
        time.sleep(PAUSE_SECONDS)
    raise Broken(f"{missing} (if requests are not counted, or /metrics is hidden: --no-metrics)")


def _ask_twice(run: SmokeRun, session: Session) -> None:
    """Sends one good and one bad request, on the connection that reads the counters."""
    body = json.dumps({"instances": run.instances}).encode()
    for content, status in ((body, 200), (WRONG[0][1], 400)):
        answer = session.ask("/v1/predict", content, {"Content-Type": JSON, **run.routing})
        if answer.status != status:
            raise Broken(f"it answers {answer.error()}, not {status} as before")


def _read_counts(run: SmokeRun, session: Session) -> dict[str, float]:
    """Returns the counters of the version that answers, summed over roles and codes."""
    answer = session.ask("/metrics")
    if answer.status != 200:
        raise Broken(f"/metrics answers {answer.kind} (if it is hidden: --no-metrics)")
    counts: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(answer.body.decode(errors="replace")):
            for sample in family.samples:
                if (
                    sample.labels.get("model_version") == run.answering["version"]
                    and sample.labels.get("role") != "shadow"
                ):
                    counts[sample.name] = counts.get(sample.name, 0) + sample.value
    except (ValueError, LookupError):
        raise Broken("/metrics does not answer with metrics") from None
    return counts


def latency(run: SmokeRun) -> str:
    """The median latency of one row is within --max-latency-ms."""
    limit = run.expected.max_latency_ms
    if limit is None:
        raise NotApplicable("not asked (--max-latency-ms)")
    body = json.dumps({"instances": run.instances[:1]}).encode()
    taken = []
    with run.client.session() as session:
        for _ in range(N_TIMED + 1):
            answer = session.ask("/v1/predict", body, {"Content-Type": JSON, **run.routing})
            if answer.status != 200:
                raise Broken(answer.error())
            taken.append(answer.seconds * 1e3)
    # The first one includes the connection.
    median, slowest = statistics.median(taken[1:]), max(taken[1:])
    said = f"median {median:.3g} ms of {N_TIMED} requests, the slowest {slowest:.3g} ms"
    if median > limit:
        raise Broken(f"{said}; the limit is {limit:g} ms")
    return said
