"""`scripts/smoke_test.py`: what a good service passes, and each claim failing where somebody lies."""

import io
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from scripts.smoke import behaviour_checks, client, run
from scripts.smoke_test import CLAIMS, HEADER_VARIABLE, main
from tests.support.environment import ROOT, clean_environment, free_port, make_certificate
from tests.support.lying_service import Asked, Lie, LyingService, Said, at, edited, instead
from tests.support.promotions import NAME, Registry, two_workers
from tests.support.proxy import BEHAVIOURS, Proxy
from tests.support.services import Service, running_service

pytestmark = pytest.mark.usefixtures("_no_settings")


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch):
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.delenv(HEADER_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def services(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """A classifier and a regressor."""
    folder = tmp_path_factory.mktemp("smoke")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                running_service(folder / name, MLFLOW_TRACKING_URI=registry_uri, SERVING_MODEL_NAME=name)
            ).wait_ready()
            for name in ("cancer", "diabetes")
        }


@pytest.fixture
def url(services: dict[str, Service]) -> str:
    return services["cancer"].url


Smoke = Callable[..., tuple[int, dict[str, tuple[str, str]], str]]


@pytest.fixture
def smoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Smoke:
    """Runs it; returns the exit code, outcome and detail by claim, and what it wrote on stderr.

    It does not wait for long, but asks everything at least once, and gives each answer a second or more.
    """
    for module in (run, behaviour_checks):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.1)

    def call(*arguments: str) -> tuple[int, dict[str, tuple[str, str]], str]:
        code = main([*arguments, "--timeout-seconds", "0.5"])
        out, err = capsys.readouterr()
        lines = [re.split(r"\s{2,}", line, maxsplit=2) for line in out.splitlines()]
        table = {line[0]: (line[1], "".join(line[2:])) for line in lines if len(line) > 1}
        return code, table, err

    return call


@pytest.mark.parametrize(("name", "without"), [("cancer", set()), ("diabetes", {"probabilities"})])
def test_a_good_service_passes_every_claim_that_its_model_allows(
    services: dict[str, Service], smoke: Smoke, name: str, without: set[str]
):
    code, table, err = smoke(services[name].url, "--name", name, "--version", "1", "--max-latency-ms", "1000")
    assert (code, err) == (0, "")
    assert list(table) == list(CLAIMS)
    assert {claim for claim, (outcome, _) in table.items() if outcome != "ok"} == without
    assert table["model"][1].startswith(f"{name} version 1")


def test_json_has_what_the_table_has(url: str, capsys: pytest.CaptureFixture[str]):
    assert main([url, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["is_met"], facts["name"], facts["version"]) == (True, "cancer", "1")
    assert [one["claim"] for one in facts["claims"]] == list(CLAIMS)


@contextmanager
def beside_a_challenger(folder: Path, percent: str) -> Iterator[Service]:
    """Runs version 1 as the champion, and version 2 as a challenger that gets so many requests."""
    registry = Registry(folder / "registry", 1.0, 0.01)
    registry.client.set_registered_model_alias(NAME, "challenger", "2")
    with two_workers(
        folder, registry, SERVING_CHALLENGER_ALIAS="challenger", SERVING_CHALLENGER_PERCENT=percent
    ) as service:
        wait_answering_both(service)
        yield service


def test_a_champion_beside_a_challenger_is_judged_by_its_own_answers(tmp_path: Path, smoke: Smoke):
    with beside_a_challenger(tmp_path, "50") as service:
        code, table, _ = smoke(service.url, "--version", "1")
    assert code == 0, table
    assert "champion" in table["version"][1]


def test_a_challenger_that_gets_every_request_is_judged_by_its_own_answers(tmp_path: Path, smoke: Smoke):
    with beside_a_challenger(tmp_path, "100") as service:
        code, table, _ = smoke(service.url, "--version", "1")
    assert code == 0, table
    assert table["version"][1] == "version 2 in body and headers (challenger)"
    assert table["metrics"][0] == "ok"


def wait_answering_both(service: Service) -> None:
    """Until every worker has both versions."""
    deadline = time.monotonic() + 120
    while True:
        found = [service.ask_anew("GET", "/v1/models").json()["models"] for _ in range(12)]
        if all(len(models) == 2 for models in found):
            return
        assert time.monotonic() < deadline
        time.sleep(0.5)


# What a liar says, the claim that fails, a part of what is told.


def set_models(**values: Any) -> Callable[[Any], None]:
    def edit(said: Any) -> None:
        said["models"][0] |= values

    return edit


def set_prediction(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Any], None]:
    def change(said: Any) -> None:
        for prediction in said["predictions"]:
            edit(prediction)

    return change


def rename_version(said: Any) -> None:
    said["model"]["version"] = "7"


def header(name: str, value: str | None) -> Lie:
    def lie(_: Asked, said: Said) -> Said:
        others = {key: text for key, text in said.headers.items() if key.lower() != name.lower()}
        return said._replace(headers=others | ({} if value is None else {name: value}))

    return at("/v1/predict", lie)


def alone_is_another(asked: Asked, said: Said) -> Said | None:
    """A row by itself has other probabilities than beside others."""
    if asked.path != "/v1/predict" or asked.n_instances != 1:
        return None
    answer = json.loads(said.body)
    one = answer["predictions"][0]["probabilities"]
    for label in one:
        one[label] = 1 - one[label] + 1e-3
    return said._replace(body=json.dumps(answer).encode())


def batch_in(media_type: str, lie: Lie) -> Lie:
    def told(asked: Asked, said: Said) -> Said | None:
        is_meant = asked.path == "/v1/predict_batch" and asked.headers["content-type"] == media_type
        return lie(asked, said) if is_meant else None

    return told


def shifted_npy(_: Asked, said: Said) -> Said:
    out = io.BytesIO()
    np.save(out, np.load(io.BytesIO(said.body)) + 1e-4)
    return said._replace(body=out.getvalue())


def shifted_arrow(_: Asked, said: Said) -> Said:
    table = pa.ipc.open_stream(said.body).read_all()
    table = table.set_column(0, table.column_names[0], pa.array([0.5] * table.num_rows))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return said._replace(body=bytes(sink.getvalue()))


def wrong_body(lie: Lie) -> Lie:
    """About predictions that are refused."""
    return lambda asked, said: lie(asked, said) if said.status >= 400 else None


def edited_error(edit: Callable[[Any, Asked], Any]) -> Lie:
    def lie(asked: Asked, said: Said) -> Said:
        value = json.loads(said.body)
        edit(value, asked)
        return said._replace(body=json.dumps(value).encode())

    return wrong_body(lie)


def frozen_metrics() -> Lie:
    first: list[Said] = []

    def lie(_: Asked, said: Said) -> Said:
        first.append(said)
        return first[0]

    return at("/metrics", lie)


def no_errors_counted(_: Asked, said: Said) -> Said:
    kept = [line for line in said.body.splitlines() if b"prediction_errors" not in line]
    return said._replace(body=b"\n".join(kept) + b"\n")


def late(*_: Any) -> None:
    time.sleep(0.03)


def alternating() -> Lie:
    """Two pods with two versions."""
    count = iter(range(1000))

    def edit(said: Any) -> None:
        said["models"][0]["version"] = str(1 + next(count) % 2)

    return edited("/v1/models", edit)


HTML = b"<html>welcome</html>"
REFUSED = {"version": "2", "code": "prepare_failed", "reason": "it has no signature", "at": "now"}

LIES: dict[str, tuple[str, Lie, str]] = {
    "a proxy without a service": ("live", instead(503, HTML, "text/html"), "/livez answers 503 (text/html)"),
    "no model yet": (
        "ready",
        at("/readyz", instead(503, b'{"error": {"code": "model_not_ready", "message": "no alias"}}')),
        "503 model_not_ready: no alias",
    ),
    "a page for readiness": ("ready", at("/readyz", instead(200, HTML, "text/html")), "does not say ready"),
    "another model": ("model", edited("/v1/models", set_models(name="iris")), "serves the model 'iris'"),
    "another version": ("model", edited("/v1/models", set_models(version="2")), "serves version 2, not 1"),
    "two versions at once": ("model", alternating(), "serves version 2, not 1"),
    "the version is refused": (
        "model",
        edited(
            "/v1/models",
            lambda said: (
                said["models"][0].update(version="0"),
                said.update(refused=[REFUSED | {"version": "1"}], stale=REFUSED["reason"]),
            ),
        ),
        "version 1 is refused: it has no signature",
    ),
    "nobody answers": (
        "model",
        edited("/v1/models", lambda said: said.update(ready=False, models=[], reason="it fell out")),
        "it fell out",
    ),
    "models of another shape": (
        "model",
        at("/v1/models", instead(200, b'{"models": 3}')),
        "documented shape",
    ),
    "the registry is not followed": (
        "registry",
        edited("/v1/models", lambda said: said.update(stale="version 2 is refused")),
        "does not follow the registry: version 2 is refused",
    ),
    "no document": ("example", at("/docs.json", instead(404, b"{}")), "/docs.json answers 404"),
    "a document without an example": ("example", at("/docs.json", instead(200, b'{"paths": {}}')), "shape"),
    "predictions fail": (
        "example",
        at("/v1/predict", instead(500, b'{"error": {"code": "internal_error", "message": "oh"}}')),
        "500 internal_error: oh",
    ),
    "a page for predictions": (
        "example",
        at("/v1/predict", instead(200, HTML, "text/html")),
        "not answer in JSON",
    ),
    "a prediction too few": (
        "example",
        edited("/v1/predict", lambda said: said["predictions"].pop()),
        "2 predictions for 3 rows",
    ),
    "a key that nobody documents": (
        "example",
        edited("/v1/predict", set_prediction(lambda one: one.update(score=1))),
        "documented are label, probabilities",
    ),
    "no probabilities": (
        "example",
        edited("/v1/predict", set_prediction(lambda one: one.pop("probabilities"))),
        "documented are label, probabilities",
    ),
    "a label of no class": (
        "example",
        edited("/v1/predict", set_prediction(lambda one: one.update(label="maybe"))),
        "'maybe' is none of the model's classes",
    ),
    "null": (
        "example",
        edited("/v1/predict", set_prediction(lambda one: one.update(probabilities={"0": None, "1": 1}))),
        "null",
    ),
    "an id of its own": ("example", header("X-Request-ID", "another"), "X-Request-ID"),
    "another version in the body": ("version", edited("/v1/predict", rename_version), "'version': '7'"),
    "another version in the header": ("version", header("X-Model-Version", "7"), "X-Model-Version is '7'"),
    "no version in the header": ("version", header("X-Model-Version", None), "X-Model-Version is None"),
    "an unknown role": ("version", header("X-Model-Role", "understudy"), "no such role"),
    "probabilities beyond one": (
        "probabilities",
        edited("/v1/predict", set_prediction(lambda one: one["probabilities"].update({"0": 0.9, "1": 0.3}))),
        "sum to 1.2",
    ),
    "a negative probability": (
        "probabilities",
        edited("/v1/predict", set_prediction(lambda one: one["probabilities"].update({"0": -0.1, "1": 1.1}))),
        "between 0 and 1",
    ),
    "probabilities of other classes": (
        "probabilities",
        edited("/v1/predict", set_prediction(lambda one: one.update(probabilities={"1": 0.5, "0": 0.5}))),
        "of the classes 1, 0, not 0, 1",
    ),
    "rows that depend on others": ("rows", alone_is_another, "together row 0"),
    "other numbers in JSON": (
        "batch, JSON",
        edited("/v1/predict_batch", lambda rows: rows[1].reverse()),
        "row 1: ",
    ),
    "fewer rows in JSON": ("batch, JSON", edited("/v1/predict_batch", list.pop), "2 rows for 3"),
    "other numbers in .npy": ("batch, .npy", batch_in("application/x-npy", shifted_npy), "row 0: "),
    "no .npy at all": (
        "batch, .npy",
        batch_in("application/x-npy", instead(200, b"[[1]]", "application/x-npy")),
        "not .npy",
    ),
    "JSON for .npy": (
        "batch, .npy",
        batch_in("application/x-npy", instead(200, b"[[1]]")),
        "it answers in application/json",
    ),
    "other numbers in Arrow": (
        "batch, Arrow",
        batch_in("application/vnd.apache.arrow.stream", shifted_arrow),
        "row 0: 0.5 for ",
    ),
    "no Arrow at all": (
        "batch, Arrow",
        batch_in(
            "application/vnd.apache.arrow.stream",
            instead(200, b"ARROW", "application/vnd.apache.arrow.stream"),
        ),
        "not an Arrow stream",
    ),
    "a mistake of its own for a wrong body": (
        "errors",
        wrong_body(instead(500, b'{"error": {"code": "internal_error", "message": "oh"}}')),
        "half a JSON body: 500 internal_error: oh, not 400",
    ),
    "a page for a wrong body": ("errors", wrong_body(instead(400, HTML, "text/html")), "not answer in JSON"),
    "an error of another shape": (
        "errors",
        edited_error(lambda said, _: said["error"].pop("details")),
        "documented shape",
    ),
    "an error without an id": (
        "errors",
        edited_error(lambda said, _: said.update(request_id="")),
        "X-Request-ID",
    ),
    "an error that repeats the value": (
        "errors",
        edited_error(lambda said, asked: said["error"].update(message=asked.body.decode())),
        "no rows: the error repeats the caller's value",
    ),
    "hidden metrics": ("metrics", at("/metrics", instead(404, HTML, "text/html")), "--no-metrics"),
    "metrics that stand still": ("metrics", frozen_metrics(), "model_predictions_total rose by 0, not 3"),
    "metrics without errors": (
        "metrics",
        at("/metrics", no_errors_counted),
        "model_prediction_errors_total rose by 0, not 1",
    ),
    "a page for metrics": ("metrics", at("/metrics", instead(200, HTML, "text/html")), "with metrics"),
    "late answers": ("latency", at("/v1/predict", late), "the limit is 20 ms"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lie_fails_its_claim_and_ends_the_test(url: str, smoke: Smoke, what: str):
    claim, lie, part = LIES[what]
    with LyingService(url, lie).running() as liar:
        code, table, _ = smoke(liar.url, "--name", "cancer", "--version", "1", "--max-latency-ms", "20")
    assert code == 1
    assert table[claim][0] == "FAILED", table
    assert part in table[claim][1]
    position = list(CLAIMS).index(claim)
    outcomes = [table[name][0] for name in CLAIMS]
    assert "FAILED" not in outcomes[:position]
    assert set(outcomes[position + 1 :]) <= {"not tried"}


def test_every_claim_is_lied_about():
    assert {claim for claim, *_ in LIES.values()} == set(CLAIMS)


def test_an_honest_proxy_passes(url: str, smoke: Smoke):
    with LyingService(url, lambda *_: None).running() as liar:
        assert smoke(liar.url)[0] == 0


def test_a_regressor_that_answers_nothing_fails(services: dict[str, Service], smoke: Smoke):
    lie = edited("/v1/predict", set_prediction(lambda one: one.update(value=None)))
    with LyingService(services["diabetes"].url, lie).running() as liar:
        code, table, _ = smoke(liar.url)
    assert (code, table["example"]) == (1, ("FAILED", "a prediction is null"))


# Where there is no service.

STRANGERS: dict[str, tuple[Lie, str]] = {
    "a web page": (instead(200, HTML, "text/html"), "is not a model server: /livez answers 200 (text/html)"),
    "a redirect to itself": (instead(302, b"", Location="/livez"), "redirects to '/livez'"),
    "a login": (instead(401, b""), f"wants a login (401 at /livez): set {HEADER_VARIABLE}"),
    "only /v1": (instead(404, b"default backend", "text/plain"), "give --v1-only"),
    "another JSON": (instead(200, b'{"status": "UP"}'), "is not a model server"),
    "null": (instead(200, b"null"), "is not a model server"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_another_server_is_told_in_one_line(url: str, smoke: Smoke, what: str):
    lie, part = STRANGERS[what]
    with LyingService(url, lie).running() as liar:
        code, table, err = smoke(liar.url)
    assert (code, table) == (2, {})
    assert part in err
    assert len(err.splitlines()) == 1


def in_trouble() -> list[str]:
    """The behaviours that are no whole answer of HTTP."""
    answers = {"500", "503 of a proxy", "a web page", "null", "a list for an object"}
    return sorted(BEHAVIOURS.keys() - answers - {"numbers for strings", "a version of another shape"})


@pytest.mark.parametrize("behaviour", in_trouble())
def test_a_server_in_trouble_is_given_up_in_time(
    smoke: Smoke, behaviour: str, monkeypatch: pytest.MonkeyPatch
):
    with Proxy(free_port()).running() as proxy, proxy.misbehaving(behaviour):
        started = time.monotonic()
        code, _, err = smoke(proxy.url)
    assert time.monotonic() - started < 5
    assert code == 2
    assert re.fullmatch(rf"smoke_test.py: no service answers at {proxy.url}: .+\n", err)


def test_a_service_that_stops_answering_on_the_way_fails(
    url: str, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
):
    """The body comes a byte at a time, often enough for any socket's timeout."""
    monkeypatch.setattr(client.Session.ask, "__defaults__", (None, None, 1.0))
    monkeypatch.setattr(client.Client.ask, "__defaults__", (None, None, 1.0))
    target = int(url.rpartition(":")[2])
    with Proxy(target).running() as proxy, proxy.misbehaving("body without an end", b"/v1/predict"):
        code, table, _ = smoke(proxy.url)
    assert (code, table["example"]) == (1, ("FAILED", "no complete answer within 1 s"))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["localhost:3000"], "is not the URL of a server"),
        (["http://user:hunter2@localhost"], "a login in the URL is visible"),
        (["http://local host"], "characters"),
        (["http://localhost", "--header", "Authorization hunter2"], "not of the form 'Name: value'"),
        (["http://localhost", "--header", "X: hunter2\nY: z"], "not of the form 'Name: value'"),
        (["http://localhost", "--timeout-seconds", "soon"], "'soon' is not a number"),
        (["http://localhost", "--max-latency-ms", "-1"], "'-1' is not a number"),
        (["http://localhost", "--example", "no-such.json"], "no-such.json cannot be read"),
        (["http://localhost", "--verson", "1"], "unrecognized arguments: --verson"),
        ([], "required: url"),
        (["http://nobody.invalid"], "its host name cannot be resolved"),
    ],
)
def test_a_mistake_is_told_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], part: str):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert part in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert "hunter2" not in err


def test_who_is_refused_a_connection_waits_and_says_so(capsys: pytest.CaptureFixture[str]):
    url = f"http://127.0.0.1:{free_port()}"
    assert main([url, "--timeout-seconds", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == "waiting for up to 1 s: the connection is refused\n"
    assert err == f"smoke_test.py: no service answers at {url}: the connection is refused\n"


def test_tls_is_checked(url: str, smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    liar = LyingService(url, lambda *_: None)
    port = liar.server_port
    assert smoke(url.replace("http:", "https:"))[2].endswith("is it http, not https?\n")
    liar.socket = context.wrap_socket(liar.socket, server_side=True)
    with liar.running():
        code, _, err = smoke(f"https://localhost:{port}")
        assert (code, "its certificate is not trusted" in err) == (2, True), err
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert smoke(f"https://localhost:{port}")[0] == 0


def test_headers_are_sent_with_each_request_and_never_printed(
    url: str, smoke: Smoke, monkeypatch: pytest.MonkeyPatch
):
    def guard(asked: Asked, _: Said) -> Said | None:
        if asked.headers.get("authorization") != "Bearer hunter2" or asked.headers.get("x-team") != "ml":
            return Said(401, {}, b"")
        return None

    with LyingService(url, guard).running() as liar:
        assert smoke(liar.url)[0] == 2
        monkeypatch.setenv(HEADER_VARIABLE, "Authorization: Bearer hunter2")
        assert smoke(liar.url, "--header", "X-Team: ml")[0] == 0

    def tell(asked: Asked, said: Said) -> Said | None:
        message = f"who is {asked.headers['authorization']}?\n\x1b[2J"
        body = json.dumps({"error": {"code": "internal_error", "message": message}}).encode()
        return Said(500, {}, body) if asked.path == "/v1/predict" else None

    with LyingService(url, tell).running() as liar:
        code, table, err = smoke(liar.url)
    assert code == 1
    assert table["example"][1].startswith("500 internal_error: who is …?")
    assert "hunter2" not in str(table) + err
    assert "\x1b" not in str(table)


def test_behind_an_ingress_only_v1_is_asked(url: str, smoke: Smoke, tmp_path: Path):
    def hide(asked: Asked, _: Said) -> Said | None:
        return None if asked.path.startswith("/v1/") else Said(404, {}, b"default backend - 404")

    with LyingService(url, hide).running() as liar:
        code, _, err = smoke(liar.url, "--v1-only")
        assert (code, "needs --example here: /docs.json" in err, len(err.splitlines())) == (2, True, 1)

    body = httpx.get(f"{url}/docs.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(body["content"]["application/json"]["example"]))
    with LyingService(url, hide).running() as liar:
        code, table, _ = smoke(liar.url, "--v1-only", "--example", str(file))
        assert {asked.path for asked in liar.asked} == {"/v1/models", "/v1/predict", "/v1/predict_batch"}
    assert code == 0
    assert table["example"] == ("ok", "3 rows of rows.json")
    assert table["metrics"] == ("–", "not asked (--v1-only)")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "not of the form"),
        ('{"instances": []}', "not of the form"),
        ('{"instances": {"age": 1}}', "not of the form"),
    ],
)
def test_an_example_that_is_none_is_told_before_anybody_is_asked(
    smoke: Smoke, tmp_path: Path, content: str | None, part: str
):
    file = tmp_path / "rows.json"
    if content is not None:
        file.write_text(content)
    code, table, err = smoke(f"http://127.0.0.1:{free_port()}", "--example", str(file))
    assert (code, table, part in err, len(err.splitlines())) == (2, {}, True, 1), err


def test_an_example_that_the_model_refuses_fails(url: str, smoke: Smoke, tmp_path: Path):
    file = tmp_path / "rows.json"
    file.write_text('{"instances": [{"no": 1}]}')
    code, table, _ = smoke(url, "--example", str(file))
    assert code == 1
    assert table["example"][1].startswith("422 invalid_input")


def test_ctrl_c_ends_it_in_one_line():
    with Proxy(free_port()).running() as proxy, proxy.misbehaving("never answers"):
        process = subprocess.Popen(
            [sys.executable, "scripts/smoke_test.py", proxy.url],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not proxy.n_misbehaved:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "smoke_test.py: interrupted\n")


def test_lines_come_as_claims_are_tried(url: str):
    with LyingService(url, at("/readyz", instead(503, b"{}"))).running() as liar:
        process = subprocess.Popen(
            [sys.executable, "scripts/smoke_test.py", liar.url],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["live", "ok", "/livez", "answers"]
        process.terminate()
        assert process.wait(20) == 143
        process.stdout.close()
