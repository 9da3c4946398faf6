"""`scripts/autopilot.py`: one of all processes makes the move of a verdict, if the registry still names its versions."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mlflow
import msgspec
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from scripts import history, rollback
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.autopilot import carry_out
from scripts.lifecycle.moves import Move, read_moves
from serving.prepare.sync.autopilot import SCRIPT
from serving.prepare.sync.verdicts import Order
from serving.settings import Settings, load_settings
from tests.support.environment import clean_environment, wait_until
from tests.support.fake_service import Run, refuse
from tests.support.postgresql import running_postgresql
from tests.support.promotions import NAME, Registry

FIGURES = "accuracy 0.9 against 0.8 of version 1"
BETTER = Order("1", "2", "challenger", "better", FIGURES)
WORSE = Order("1", "2", "challenger", "worse", FIGURES)


@pytest.fixture
def environment(registry: Registry, tmp_path: Path) -> dict[str, str]:
    """Of a service that gets feedback; version 2 is its challenger."""
    registry.client.set_registered_model_alias(NAME, "challenger", "2")
    return {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "SERVING_CHALLENGER_ALIAS": "challenger",
        "SERVING_SHADOW_ALIAS": "shadow",
        "SERVING_LOG_PREDICTIONS": str(tmp_path / "predictions"),
        "SERVING_FEEDBACK_STORE": "sqlite",
    }


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def moves(registry: Registry) -> list[Move]:
    versions = registry.client.search_model_versions(f"name = '{NAME}'")
    return read_moves(version.tags for version in versions)


def summaries(registry: Registry) -> list[tuple[Any, ...]]:
    return [(move.kind, move.alias, move.source, move.target) for move in moves(registry)]


def done(order: Order, settings: Settings) -> list[str]:
    said: list[str] = []
    carry_out(order, settings, said.append)
    return said


def test_a_better_challenger_is_promoted_and_recorded(registry: Registry, settings: Settings, run: Run):
    promoted, removed, called = done(BETTER, settings)
    assert promoted == f"{NAME}@production went from version 1 to 2: {FIGURES}"
    assert removed == f"{NAME}@challenger was removed (version 2): {FIGURES}"
    assert "1.1.0" in called
    assert registry.aliases == {"production": "2"}
    assert summaries(registry) == [("promote", "production", "1", "2"), ("promote", "challenger", "2", None)]
    assert {move.why for move in moves(registry)} == {f"autopilot: {FIGURES}"}
    assert "autopilot: accuracy 0.9" in run(history)[1]
    assert run(rollback)[0] == 0  # it knows what the promotion replaced
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize("role", ["challenger", "shadow"])
def test_a_worse_version_loses_its_role(registry: Registry, settings: Settings, role: Any):
    registry.client.set_registered_model_alias(NAME, "shadow", "2")
    (said,) = done(msgspec.structs.replace(WORSE, role=role), settings)
    assert said == f"{NAME}@{role} was removed (version 2): {FIGURES}"
    other = {"challenger": "shadow", "shadow": "challenger"}[role]
    assert registry.aliases == {"production": "1", other: "2"}
    assert summaries(registry) == [("rollback", role, "2", None)]


@pytest.mark.parametrize("order", [BETTER, WORSE])
@pytest.mark.parametrize(
    ("alias", "version"), [("production", "3"), ("challenger", "3"), ("challenger", None)]
)
def test_a_verdict_on_other_versions_changes_nothing(
    registry: Registry, settings: Settings, order: Order, alias: str, version: str | None
):
    if version is None:
        registry.client.delete_registered_model_alias(NAME, alias)
    else:
        registry.client.set_registered_model_alias(NAME, alias, version)
    before = registry.aliases
    assert done(order, settings) == []
    assert registry.aliases == before
    assert moves(registry) == []


def test_a_login_that_may_not_remove_aliases_changes_nothing(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    denied = MlflowException("…", error_code=PERMISSION_DENIED)
    monkeypatch.setattr(mlflow.MlflowClient, "delete_registered_model_alias", Mock(side_effect=denied))
    with pytest.raises(LifecycleError, match="needs the permission MANAGE"):
        done(BETTER, settings)
    assert registry.aliases == {"production": "1", "challenger": "2"}


def test_a_move_that_cannot_be_recorded_is_told_and_completed(
    registry: Registry, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mlflow.MlflowClient, "set_model_version_tag", lambda *_: refuse())
    said = done(BETTER, settings)
    assert "is version 2 now, and that could not be recorded" in said[0]
    assert registry.aliases == {"production": "2"}


def start(environment: dict[str, str], order: Order, patch: str = "") -> subprocess.Popen[str]:
    """Starts the script as the sync process does, after a statement that replaces a part of it."""
    command = (
        [str(SCRIPT)]
        if not patch
        else ["-c", f"import sys\nfrom scripts import autopilot\n{patch}\nautopilot.main(sys.argv[1])"]
    )
    return subprocess.Popen(
        [sys.executable, *command, msgspec.json.encode(order).decode()],
        env=clean_environment() | environment | {"PYTHONPATH": str(SCRIPT.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, str]]:
    """The URLs of both kinds of store."""
    with running_postgresql() as server:
        yield {"sqlite": "sqlite", "postgresql": server.url}


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_one_of_many_processes_moves(
    registry: Registry, environment: dict[str, str], stores: dict[str, str], store: str
):
    environment["SERVING_FEEDBACK_STORE"] = stores[store]
    processes = [start(environment, BETTER) for _ in range(5)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 5
    assert {err for _, err in said} == {""}
    assert len([out for out, _ in said if out]) == 1
    assert registry.aliases == {"production": "2"}
    assert summaries(registry) == [("promote", "production", "1", "2"), ("promote", "challenger", "2", None)]


STEPS = {
    "before the move": "autopilot.carry_out = lambda *_: (print('there', flush=True), time.sleep(600))",
    "before the challenger is removed": (
        "from scripts.lifecycle.registry import RegisteredModel\n"
        "RegisteredModel.remove = lambda *_: (print('there', flush=True), time.sleep(600))"
    ),
}


@pytest.mark.parametrize(("step", "store"), [*zip(STEPS, ["postgresql", "sqlite"], strict=True)])
def test_another_process_completes_what_a_killed_one_began(
    registry: Registry, environment: dict[str, str], stores: dict[str, str], step: str, store: str
):
    environment["SERVING_FEEDBACK_STORE"] = stores[store]
    killed = start(environment, BETTER, f"import time\n{STEPS[step]}")
    assert killed.stdout is not None
    seen: list[str] = []
    wait_until(lambda: bool(seen.append(killed.stdout.readline()) or "there\n" in seen), 60, "it is there")
    try:
        other = start(environment, BETTER)
        assert (*other.communicate(timeout=60), other.returncode) == ("", "", 0)
        assert "challenger" in registry.aliases
    finally:
        killed.kill()
        killed.communicate()
    after = start(environment, BETTER)
    out, err = after.communicate(timeout=60)
    assert (after.returncode, err) == (0, "")
    assert f"{NAME}@challenger was removed" in out
    assert registry.aliases == {"production": "2"}
    assert summaries(registry) == [("promote", "production", "1", "2"), ("promote", "challenger", "2", None)]


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1", "the registry http://127.0.0.1:1 cannot be queried"),
        ("SERVING_LOG_PREDICTIONS", "/proc/none", "feedback"),
    ],
)
def test_a_failure_is_one_line(environment: dict[str, str], variable: str, value: str, part: str):
    process = start(environment | {variable: value}, BETTER)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert part in err
    assert err.count("\n") == 1
