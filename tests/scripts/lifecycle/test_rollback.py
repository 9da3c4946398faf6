"""`scripts/rollback.py` and `scripts/history.py`: back to the version before, recorded."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import history, rollback
from scripts.lifecycle.moves import Move, Selector, encode, previous_version, read_moves
from scripts.training.registration import _promote
from tests.support.doubles import Double, StrictHost
from tests.support.environment import ROOT, clean_environment, free_port, tracking
from tests.support.fake_service import FakeService, Run
from tests.support.promotions import NAME, Registry


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


def test_a_long_reason_is_cut_to_the_width_and_a_line():
    moves = [move(1, "promote", "1", "2"), move(2, "rollback", "2", "1")]
    moves[1] = msgspec.structs.replace(moves[1], why="it fails\n" + "more often " * 30)
    head, first, last = history.to_table(moves, {}, 120)
    assert max(map(len, (head, first, last))) == len(last) == 120
    assert last.endswith("…")
    assert "it fails more often more often" in last
    assert "it fails more" in history.to_table(moves, {}, 40)[2]


@given(st.permutations(range(8)))
def test_moves_come_in_the_order_in_which_they_were_made(order: list[int]):
    moves = [move(at, "promote", str(at), str(at + 1)) for at in range(8)]
    tags = [{moves[at].tag: encode(moves[at]), "other": "tag"} for at in order]
    assert read_moves(tags) == moves


def test_a_tag_that_is_no_move_is_left_out():
    assert read_moves([{"serving.move.x": "by hand"}, {"serving.move.y": '{"at": 5}'}]) == []


@pytest.fixture
def registry(registry: Registry) -> Registry:
    """Its versions were promoted one after the other."""
    with tracking(registry.uri):
        for version in "23":
            _promote(registry.client, NAME, Selector("alias", "production"), str(int(version) - 1), version)
    return registry


def current(registry: Registry) -> str:
    return registry.aliases["production"]


def test_rolling_back_twice_goes_two_versions_back_and_is_recorded(registry: Registry, run: Run):
    code, out, _ = run(rollback, "--why", "wrong prices")
    assert (code, current(registry)) == (0, "2")
    assert "went back from version 3 to 2" in out
    code, _, _ = run(rollback)
    assert (code, current(registry)) == (0, "1")
    code, _, err = run(rollback)
    assert (code, current(registry)) == (2, "1")
    assert err.count("\n") == 1
    assert "--to" in err

    lines = [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["from"], line["to"]) for line in lines] == [
        ("rollback", "3", "2"),
        ("rollback", "2", "1"),
    ]
    assert lines[0]["why"] == "wrong prices"

    code, out, _ = run(history, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["current"] == "1"
    assert [(m["kind"], m["from"], m["to"]) for m in told["moves"]] == [
        ("promote", "1", "2"),
        ("promote", "2", "3"),
        ("rollback", "3", "2"),
        ("rollback", "2", "1"),
    ]
    code, out, _ = run(history)
    assert code == 0
    assert out.splitlines()[0] == "wine@production: version 1"
    assert "wrong prices" in out


def test_going_back_from_a_version_goes_from_that_one_only_and_not_twice(registry: Registry, run: Run):
    arguments = ("--to", "1", "--only-from", "3")
    assert run(rollback, *arguments)[0] == 0
    assert current(registry) == "1"
    code, out, err = run(rollback, *arguments)
    assert (code, out) == (2, "")
    assert err == "rollback.py: wine@production is version 1, not 3; left unchanged\n"


def test_a_dry_run_changes_nothing(registry: Registry, run: Run):
    code, out, _ = run(rollback, "--dry-run", "--json")
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
        (["--to", "1", "--only-from", "2"], "wine@production is version 3, not 2; left unchanged"),
        (["--two", "2"], "--help lists the options"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    registry: Registry, run: Run, arguments: list[str], part: str
):
    code, out, err = run(rollback, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("rollback.py: ")
    assert err.count("\n") == 1
    assert part in err
    assert current(registry) == "3"


def test_a_registry_that_is_down_is_told(run: Run):
    down = f"http://me:hunter2@127.0.0.1:{free_port()}"
    code, _, err = run(rollback, MLFLOW_TRACKING_URI=down, SERVING_REGISTRY_TIMEOUT_SECONDS="1")
    assert code == 2
    assert "cannot be queried" in err
    assert "hunter2" not in err


def test_a_registry_that_refuses_its_name_is_told_what_to_set(run: Run):
    with Double(StrictHost).running() as server:
        host = server.url.removeprefix("http://")
        code, _, err = run(rollback, MLFLOW_TRACKING_URI=f"http://me:hunter2@{host}")
    assert (code, err) == (
        2,
        f"rollback.py: the registry {server.url} cannot be queried (MLFLOW_TRACKING_URI): MLflow says 403 Invalid Host header: start its "
        f"server with MLFLOW_SERVER_ALLOWED_HOSTS={host}, or --allowed-hosts\n",
    )


def test_it_waits_for_the_services_and_names_those_that_do_not_follow(
    registry: Registry, service: FakeService, run: Run
):
    asked = 0

    def follow_late() -> dict[str, str]:
        nonlocal asked
        asked += registry.aliases["production"] == "2"
        return registry.aliases if asked > 6 else {"production": "3"}

    service.current = follow_late
    code, out, _ = run(rollback, "--url", service.url)
    assert code == 0
    assert out.splitlines()[-1] == (
        f"{service.url} answers with version 2 (one address; other pods behind it were not checked)"
    )
    assert asked > 6
    dead = f"http://127.0.0.1:{free_port()}"
    code, out, _ = run(
        rollback, "--url", service.url, "--url", dead, "--timeout", "0.2", "--to", "1", "--json"
    )
    assert code == 1
    assert json.loads(out)["late"] == {dead: "no answer (URLError)"}


@pytest.mark.parametrize("command", [("history",), ("rollback", "--dry-run"), ("promote", "2", "--dry-run")])
def test_a_look_needs_no_mlflow_whose_import_takes_seconds(registry: Registry, command: tuple[str, ...]):
    script, *arguments = command
    code = (
        f"import sys; from scripts import {script}\n"
        f"assert {script}.main({arguments!r}) == 0\n"
        "print(sorted({'mlflow', 'pandas', 'sklearn', 'sqlalchemy'} & set(sys.modules)))"
    )
    environment = clean_environment() | {"MLFLOW_TRACKING_URI": registry.uri, "SERVING_MODEL_NAME": NAME}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


def test_a_mistyped_path_makes_no_registry(run: Run, tmp_path: Path):
    code, out, err = run(history, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mistyped.db")
    assert (code, out) == (2, "")
    assert f"there is no registry at sqlite:///{tmp_path}/mistyped.db" in err
    assert not (tmp_path / "mistyped.db").exists()
