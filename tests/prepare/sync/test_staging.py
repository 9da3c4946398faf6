"""How versions are loaded into two workers of a real service, one beside the other."""

import os
import signal
import time
from pathlib import Path

import mlflow
import pytest

from serving.prepare.registry.resolution import CHALLENGER_PERCENT_TAG
from tests.support.environment import wait_until
from tests.support.processes import WORKER, child_processes
from tests.support.promotions import (
    NAME,
    ROWS,
    Clients,
    Registry,
    metrics,
    refused,
    trapped,
    two_workers,
    wait_answering,
)
from tests.support.services import Service, running_service


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with three versions."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.1, 0.01)


def loaded_at(service: Service, role: str) -> set[str]:
    """When the workers have loaded the model in the role."""
    found = set()
    for _ in range(12):
        answer = service.http.get("/v1/models", headers={"Connection": "close"}).json()
        found |= {model["loaded_at"] for model in answer["models"] if model["role"] == role}
    return found


def test_a_version_that_hangs_in_the_workers_does_not_hold_up_the_next(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0, 0.01)
    hanging = registry.add(trapped("hang"))
    with two_workers(tmp_path, registry, SERVING_PREPARE_TIMEOUT_SECONDS="600") as service:
        wait_answering(service, "1")
        with Clients(service, registry, ("1", "2"), n=2) as clients:
            registry.promote(hanging)
            wait_until(
                lambda: list((tmp_path / "bentoml").rglob(f"{hanging}-*/manifest.json")),
                180,
                "it is prepared",
            )
            time.sleep(2)  # in which the workers begin to load it
            registry.promote("2")
            wait_answering(service, "2", 60)
        assert clients.wrong == []
        assert refused(service) == {}  # nothing is known against it


def test_a_first_version_that_hangs_while_it_is_prepared_does_not_hold_up_the_next(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0)
    registry.promote(registry.add(trapped("stuck")))
    with running_service(
        tmp_path,
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_PREPARE_TIMEOUT_SECONDS="600",
    ) as service:
        service.wait_reason("the model is being prepared")
        wait_until(lambda: "registry: wine version 2" in service.log, 120, "it is prepared")
        time.sleep(5)
        registry.promote("1")
        service.wait_ready(60)


def test_a_challenger_stays_loaded_when_a_shadow_comes(versions: Registry, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(versions.uri, versions.uri)
    client.set_registered_model_alias(NAME, "challenger", "2")
    with two_workers(
        tmp_path, versions, SERVING_CHALLENGER_ALIAS="challenger", SERVING_SHADOW_ALIAS="shadow"
    ) as service:
        wait_until(lambda: loaded_at(service, "challenger"), 60, "the challenger is loaded")
        before = wait_until(
            lambda: (
                len(service.http.get("/v1/models").json()["models"]) == 2 and loaded_at(service, "challenger")
            ),
            60,
            "both workers have it",
        )
        time.sleep(1.1)  # what is loaded now has another second
        client.set_registered_model_alias(NAME, "shadow", "3")
        wait_until(lambda: loaded_at(service, "shadow"), 60, "the shadow is loaded")
        assert loaded_at(service, "challenger") <= before


def test_a_challenger_is_taken_away_while_a_shadow_is_prepared(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0, 0.01)
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_registered_model_alias(NAME, "challenger", "2")
    client.set_registered_model_tag(NAME, CHALLENGER_PERCENT_TAG, "50")
    stuck = registry.add(trapped("stuck"))
    with two_workers(
        tmp_path, registry, SERVING_CHALLENGER_ALIAS="challenger", SERVING_SHADOW_ALIAS="shadow"
    ) as service:

        def shares() -> set[tuple[str, float]]:
            answers = [service.ask_anew("GET", "/v1/models").json() for _ in range(12)]
            return {(model["role"], model["percent"]) for answer in answers for model in answer["models"]}

        wait_until(lambda: shares() == {("champion", 50), ("challenger", 50)}, 90, "it has its share")
        client.set_registered_model_alias(NAME, "shadow", stuck)
        wait_until(
            lambda: f"registry: wine version {stuck} " in service.log, 60, "the shadow is being prepared"
        )
        client.set_registered_model_tag(NAME, CHALLENGER_PERCENT_TAG, "10")
        wait_until(lambda: shares() == {("champion", 90), ("challenger", 10)}, 30, "its share is changed")
        client.delete_registered_model_alias(NAME, "challenger")
        wait_until(lambda: shares() == {("champion", 100)}, 30, "it is gone")


def test_a_worker_that_is_started_again_takes_no_request_before_it_has_the_model(
    versions: Registry, tmp_path: Path
) -> None:
    versions.promote("1")
    with two_workers(tmp_path, versions) as service:
        wait_answering(service, "1")
        with Clients(service, versions, ("1",), n=2) as clients:
            killed = child_processes(service.process.pid, WORKER)[0]
            os.kill(killed, signal.SIGKILL)
            wait_until(
                lambda: (
                    service.every_worker_serves("wine:1-")
                    and killed not in child_processes(service.process.pid, WORKER)
                ),
                60,
                "there are two again",
            )
            for _ in range(200):
                assert (
                    service.ask_anew("POST", "/v1/predict", json={"instances": ROWS[:1]}).status_code == 200
                )
        # What the killed one was answering is lost with it.
        assert not [what for what in clients.wrong if "503" in what]


def test_when_the_registry_answered_last_is_shown(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0)

    def asked(service: Service) -> float:
        (line,) = [
            line
            for line in metrics(service).splitlines()
            if line.startswith("model_registry_asked_timestamp_seconds ")
        ]
        return float(line.split()[1])

    started = time.time()
    with two_workers(tmp_path, registry) as service:
        wait_answering(service, "1")
        first = asked(service)
        assert started <= first <= time.time() + 1
        wait_until(lambda: asked(service) > first, 30, "it is asked again")
        assert service.http.get("/v1/models").json()["registry_asked_at"] > "2026"
        (tmp_path / "own" / "mlflow.db").rename(tmp_path / "away.db")
        wait_until(lambda: service.http.get("/v1/models").json()["stale"], 30, "it is gone")
        last = asked(service)
        time.sleep(2)
        assert asked(service) == last
