"""`scripts/rollback.py` and `scripts/history.py`: back to the version before, recorded."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import history, rollback
from scripts.lifecycle.moves import Move, Selector, encode, previous_version, read_moves
from scripts.training.registration import _promote
from tests.support.environment import ROOT, clean_environment, free_port, tracking
from tests.support.promotions import NAME, Registry, wait_answering
from tests.support.services import running_service


def move(at: int, kind: str, source: str | None, target: str, alias: str = "production") -> Move:
    moment = dt.datetime(2026, 1, 1, 0, 0, at, tzinfo=dt.UTC).isoformat()
    return Move(moment, "me@here", kind, "wine", alias, source, target)


def test_the_version_before_is_what_the_promotion_of_the_current_one_replaced():
    moves = [move(1, "promote", None, "1"), move(2, "promote", "1", "2"), move(3, "promote", "2", "3")]
    production = Selector("alias", "production")
    assert previous_version(moves, production, "3") == "2"
    back = [*moves, move(4, "rollback", "3", "2")]
    assert previous_version(back, production, "2") == "1"  # not the bad one again
    again = [*back, move(5, "rollback", "2", "1")]
    assert previous_version(again, production, "1") is None
    assert previous_version(moves, Selector("alias", "staging"), "3") is None
    assert previous_version([], production, "3") is None


@given(st.permutations(range(8)))
def test_moves_come_in_the_order_in_which_they_were_made(order: list[int]):
    moves = [move(at, "promote", str(at), str(at + 1)) for at in range(8)]
    tags = [{moves[at].tag: encode(moves[at]), "other": "tag"} for at in order]
    assert read_moves(tags) == moves


def test_a_tag_that_is_no_move_is_left_out():
    assert read_moves([{"serving.move.x": "by hand"}, {"serving.move.y": '{"at": 5}'}]) == []


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Three versions, promoted one after the other."""
    made = Registry(tmp_path / "own", 1.0, 0.1, 0.01)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.setenv("SERVING_MODEL_NAME", NAME)
    monkeypatch.chdir(tmp_path)
    with tracking(made.uri):
        client = mlflow.MlflowClient(made.uri, made.uri)
        for version in "23":
            _promote(client, NAME, "production", version)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.setenv("SERVING_MODEL_NAME", NAME)
    return made


def current(registry: Registry) -> str:
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    return str(client.get_registered_model(NAME).aliases["production"])


def run(module: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = module.main(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_rolling_back_twice_goes_two_versions_back_and_is_recorded(
    registry: Registry, capsys: pytest.CaptureFixture[str]
):
    code, out, _ = run(rollback, capsys, "--why", "wrong prices")
    assert (code, current(registry)) == (0, "2")
    assert "went back from version 3 to 2" in out
    code, _, _ = run(rollback, capsys)
    assert (code, current(registry)) == (0, "1")
    code, _, err = run(rollback, capsys)
    assert (code, current(registry)) == (2, "1")
    assert err.count("\n") == 1
    assert "--to" in err

    lines = [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["from"], line["to"]) for line in lines] == [
        ("rollback", "3", "2"),
        ("rollback", "2", "1"),
    ]
    assert lines[0]["why"] == "wrong prices"

    code, out, _ = run(history, capsys, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["current"] == "1"
    assert [(m["kind"], m["from"], m["to"]) for m in told["moves"]] == [
        ("promote", "1", "2"),
        ("promote", "2", "3"),
        ("rollback", "3", "2"),
        ("rollback", "2", "1"),
    ]
    code, out, _ = run(history, capsys)
    assert code == 0
    assert out.splitlines()[0] == "wine@production: version 1"
    assert "wrong prices" in out


def test_going_back_from_a_version_goes_from_that_one_only_and_not_twice(
    registry: Registry, capsys: pytest.CaptureFixture[str]
):
    arguments = ("--to", "1", "--only-from", "3")
    assert run(rollback, capsys, *arguments)[0] == 0
    assert current(registry) == "1"
    code, out, err = run(rollback, capsys, *arguments)
    assert (code, out) == (2, "")
    assert err == "rollback.py: wine@production is version 1, not 3; it is left so\n"


def test_a_dry_run_changes_nothing(registry: Registry, capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(rollback, capsys, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out) == {
        "model": NAME,
        "alias": "production",
        "from": "3",
        "to": "2",
        "done": False,
    }
    assert current(registry) == "3"
    assert not Path("audit.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--to", "9"], "has no version 9 (there are: 1, 2, 3)"),
        (["--name", "beer"], "no model 'beer'"),
        (["--alias", "blue"], "wine@blue is not set"),
        (["--to", "1", "--only-from", "2"], "wine@production is version 3, not 2; it is left so"),
        (["--two", "2"], "--help lists the options"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    registry: Registry, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
):
    code, out, err = run(rollback, capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("rollback.py: ")
    assert err.count("\n") == 1
    assert part in err
    assert current(registry) == "3"


def test_a_registry_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setenv("SERVING_REGISTRY_TIMEOUT_SECONDS", "1")
    code, _, err = run(rollback, capsys)
    assert code == 2
    assert "does not answer" in err
    assert "hunter2" not in err


def test_it_waits_for_the_services_and_names_those_that_do_not_follow(registry: Registry, tmp_path: Path):
    with running_service(
        tmp_path / "service",
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_WORKERS="2",
    ) as service:
        service.wait_ready()
        dead = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "scripts/rollback.py", "--audit-log", str(tmp_path / "audit.jsonl")]
        environment = clean_environment() | {
            "MLFLOW_TRACKING_URI": registry.uri,
            "SERVING_MODEL_NAME": NAME,
        }

        def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )

        done = call("--url", service.url)
        assert done.returncode == 0, done.stderr
        assert "all 1 service(s) answer with version 2" in done.stdout
        wait_answering(service, "2")
        # Version 3 is prepared still: the time is not what is looked at here.
        late = call("--url", service.url, "--url", dead, "--timeout", "20", "--to", "3", "--json")
        assert late.returncode == 1
        assert json.loads(late.stdout)["late"] == {dead: "no answer (URLError)"}
        wait_answering(service, "3")
