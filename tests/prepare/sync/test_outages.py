"""The registry is down, slow or talks nonsense: at a start, and while a service runs."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.model.state import State, state_path, write_state
from serving.settings import Settings
from serving.traffic.router import Router
from tests.support.environment import free_port, wait_until
from tests.support.prepared import take_prepared
from tests.support.processes import SYNC, child_processes
from tests.support.promotions import (
    NAME,
    Clients,
    Registry,
    signed,
    tracking_server,
    versions_answering,
    wait_answering,
)
from tests.support.proxy import BEHAVIOURS, Proxy
from tests.support.services import Service, running_service


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with two versions."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.01)


REGISTRY_TIMEOUT_SECONDS = 1


def stale(service: Service) -> str:
    return str(service.http.get("/v1/models").json()["stale"] or "")


@pytest.fixture(scope="module")
def followed(versions: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Proxy]]:
    """Two workers that have prepared both versions, and the proxy behind which their registry is."""
    port = free_port()
    versions.promote("1")
    with (
        tracking_server(versions.uri, port),
        Proxy(port).running() as proxy,
        running_service(
            tmp_path_factory.mktemp("followed"),
            MLFLOW_TRACKING_URI=proxy.url,
            behind=versions.uri,
            SERVING_MODEL_NAME=NAME,
            SERVING_WORKERS="2",
            SERVING_SYNC_SECONDS="0.5",
            SERVING_REGISTRY_TIMEOUT_SECONDS=str(REGISTRY_TIMEOUT_SECONDS),
        ) as service,
    ):
        service.wait_ready()
        versions.promote("2")
        wait_answering(service, "2")
        yield service, proxy


def peak_mb(pid: int) -> float:
    """The most memory that a process has had, in 10^6 bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024 / 1e6


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_callers_notice_nothing_of_a_registry_in_trouble_and_what_it_says_afterwards_is_followed(
    followed: tuple[Service, Proxy], versions: Registry, behaviour: str
) -> None:
    service, proxy = followed
    versions.promote("1")
    wait_answering(service, "1")
    wait_until(lambda: stale(service) == "", 30, "all is well")
    (sync,) = child_processes(service.process.pid, SYNC)
    before = peak_mb(sync)
    with Clients(service, versions, ("1", "2"), n=2) as clients:
        with proxy.misbehaving(behaviour):
            # MLflow's own client is asked about nonsense, at the lowest priority.
            # Of some it makes a model without an alias.
            why = ("cannot be queried", "cannot be read", "has the alias 'production'")
            wait_until(lambda: any(part in stale(service) for part in why), 120, "it is told")
            n_misbehaved = proxy.n_misbehaved
            wait_until(lambda: proxy.n_misbehaved > n_misbehaved, 30, "the registry is asked again")
            versions.promote("2")
            assert versions_answering(service) == {"1"}
        wait_answering(service, "2")
        wait_until(lambda: stale(service) == "", 30, "all is well again")
    assert clients.wrong == []
    assert child_processes(service.process.pid, SYNC) == [sync]
    assert peak_mb(sync) - before < 40
    assert "Traceback" not in service.log


def test_what_mlflows_client_said_once_is_not_followed_when_the_registry_has_said_another_thing_since(
    followed: tuple[Service, Proxy], versions: Registry
) -> None:
    """Twice within a minute the registry is understood by MLflow's own client only, with a promotion between."""
    service, proxy = followed
    for version in "21":
        versions.promote(version)
        wait_answering(service, version)
        with proxy.misbehaving("null", victims=b"Python-urllib"):
            wait_until(lambda: proxy.n_misbehaved >= 3, 120, "MLflow's client was asked, and rounds later")
            assert versions_answering(service, 30) == {version}
        wait_until(lambda: stale(service) == "", 30, "all is well")


def test_callers_notice_nothing_of_a_registry_that_is_down(
    followed: tuple[Service, Proxy], versions: Registry
) -> None:
    service, proxy = followed
    versions.promote("1")
    wait_answering(service, "1")
    wait_until(lambda: stale(service) == "", 30, "all is well")
    with Clients(service, versions, ("1", "2"), n=2) as clients:
        with proxy.gone():
            wait_until(lambda: "cannot be queried" in stale(service), 30, "it is told")
            assert versions_answering(service) == {"1"}
            versions.promote("2")
        wait_answering(service, "2")
        wait_until(lambda: stale(service) == "", 30, "all is well again")
    assert clients.wrong == []
    assert "Traceback" not in service.log


def test_a_start_without_the_registry_serves_what_was_served_last(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0, 0.01)
    database, away = tmp_path / "own" / "mlflow.db", tmp_path / "own" / "away.db"
    settings = {"MLFLOW_TRACKING_URI": registry.uri, "SERVING_MODEL_NAME": NAME}
    with running_service(tmp_path / "service", **settings) as service:
        service.wait_ready()
    database.rename(away)
    with running_service(tmp_path / "service", **settings) as service:
        service.wait_ready()
        assert "there is no registry" in stale(service)
        assert "\nmodel_registry_stale 1.0" in service.http.get("/metrics").text
        assert "from the last run" in service.log
        assert versions_answering(service) == {"1"}
        away.rename(database)
        registry.promote("2")
        wait_answering(service, "2")
        assert stale(service) == ""
    database.rename(away)
    # Of another selection nothing was ever served.
    with running_service(tmp_path / "service", **settings, SERVING_MODEL_ALIAS="staging") as service:
        service.wait_reason("there is no registry")
        away.rename(database)


def test_mlflows_webhook_makes_a_promotion_seen_at_once(
    versions: Registry, tmp_path: Path, serve: Callable[..., Service]
) -> None:
    versions.promote("1")
    service = serve(
        MLFLOW_TRACKING_URI=versions.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_SYNC_SECONDS="3600",
        SERVING_WEBHOOK_SECRET="hunter2",
    ).wait_ready()
    body = json.dumps({"entity": "model_version_alias", "action": "created"}).encode()
    versions.promote("2")
    for headers in ({}, signed("wrong", body)):
        response = service.http.post("/v1/sync", content=body, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "unauthorized"
    assert service.http.get("/v1/sync").status_code == 405
    assert versions_answering(service) == {"1"}
    response = service.http.post("/v1/sync", content=body, headers=signed("hunter2", body))
    assert response.status_code == 202
    wait_answering(service, "2")
    assert "hunter2" not in service.log


def test_old_prepared_versions_are_removed_and_those_in_use_stay(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", *(2.0**n for n in range(5)))
    home = tmp_path / "shared"
    shared = {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "SERVING_KEEP_VERSIONS": "2",
        "BENTOML_HOME": str(home),
    }

    def stored() -> set[str]:
        return {path.parent.name.partition("-")[0] for path in home.rglob("manifest.json")}

    take_prepared(home, registry.uri, {"1"})
    with (
        running_service(tmp_path / "a", is_cold=True, **shared, SERVING_MODEL_VERSION="1") as pinned,
        running_service(tmp_path / "b", is_cold=True, **shared) as service,
    ):
        pinned.wait_ready()
        service.wait_ready()
        for version in "2345":
            if version != "5":  # the last one is prepared here, the others by another service
                take_prepared(home, registry.uri, {version})
            registry.promote(version)
            wait_answering(service, version)
        wait_until(lambda: stored() == {"1", "4", "5"}, 20, "the others are removed")
        registry.promote("4")
        wait_answering(service, "4")
        assert stored() == {"1", "4", "5"}
    assert not list((home / "preparing").glob("*.tmp"))


def test_a_clock_that_is_set_back_hides_no_state(tmp_path: Path) -> None:
    """Two states with the same time stamp: the worker tells them apart by the file that each is."""
    seen = set()
    for champion in ("wine:1-a", "wine:2-b"):
        write_state(tmp_path, State(champion=champion))
        os.utime(state_path(tmp_path), (0, 0))
        router = Router(tmp_path, Settings())
        seen.add(router.look())
    assert len(seen) == 2
