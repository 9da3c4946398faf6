"""Promotions in a real service with two workers, under load."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.environment import wait_until
from tests.support.prepared import prepare_all, take_prepared
from tests.support.processes import SYNC, WORKER, child_processes, resident_mb
from tests.support.promotions import (
    NAME,
    Clients,
    Registry,
    metrics,
    refused,
    trapped,
    two_workers,
    version_of_neighbours,
    versions_answering,
    wait_answering,
)
from tests.support.services import Service
from tests.support.soak import scaled

N_PROMOTIONS = scaled(12, 200)
N_PROMOTIONS_BETWEEN_RUNTIMES = scaled(6, 90)
N_NEW_VERSIONS = scaled(6, 40)
N_KILLS = scaled(2, 40)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with two versions."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.01)


def workers(service: Service) -> list[int]:
    return sorted(child_processes(service.process.pid, WORKER))


@pytest.mark.soak
def test_many_promotions_under_load_fail_no_request(versions: Registry, tmp_path: Path) -> None:
    versions.promote("1")
    with two_workers(tmp_path, versions) as service:
        wait_answering(service, "1")
        pids = workers(service)
        assert len(pids) == 2
        memory: list[float] = []
        with Clients(service, versions, ("1", "2")) as clients:
            for n in range(N_PROMOTIONS):
                version = "21"[n % 2]
                versions.promote(version)
                wait_answering(service, version)
                if n in (9, N_PROMOTIONS - 1):
                    memory.append(memory_mb(service))
        print_figures(f"{N_PROMOTIONS} promotions", clients, memory)
        assert clients.wrong == []
        assert min(clients.answered["1"], clients.answered["2"]) > N_PROMOTIONS
        assert workers(service) == pids, "a worker was started again"
        assert memory[1] <= 1.2 * memory[0], memory


def memory_mb(service: Service) -> float:
    """Of all workers."""
    return sum(map(resident_mb, workers(service)))


def print_figures(what: str, clients: Clients, memory_mb: list[float]) -> None:
    """For `make soak`, which shows what passed tests print."""
    print(
        f"{what}: {clients.answered.total()} requests, {len(clients.wrong)} wrong; "
        f"workers {memory_mb[0]:.0f} MB, at the end {memory_mb[-1]:.0f} MB"
    )


def runtime(service: Service) -> str:
    (model,) = service.http.get("/v1/models").json()["models"]
    return str(model["runtime"])


@pytest.mark.soak
def test_promotions_between_runtimes_fail_no_request_and_leave_no_memory_behind(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0)
    registry.add(version_of_neighbours(25, is_scaled=True))
    registry.add(version_of_neighbours(35, is_scaled=False))
    prepare_all(registry.uri)
    runtimes = {"1": "compiled", "2": "mixed", "3": "native"}
    # Neighbours take many times as long as a regression.
    with two_workers(tmp_path, registry, SERVING_MAX_SLOWDOWN="10000") as service:
        pids = workers(service)
        memory: list[float] = []
        with Clients(service, registry, tuple(runtimes), n=2) as clients:
            for n in range(N_PROMOTIONS_BETWEEN_RUNTIMES):
                version = "231"[n % 3]
                registry.promote(version)
                wait_answering(service, version)
                assert runtime(service) == runtimes[version]
                if version == "1":
                    memory.append(memory_mb(service))
        print_figures(f"{N_PROMOTIONS_BETWEEN_RUNTIMES} promotions between runtimes", clients, memory)
        assert clients.wrong == []
        assert min(clients.answered[version] for version in runtimes) > N_PROMOTIONS_BETWEEN_RUNTIMES
        assert workers(service) == pids, "a worker was started again"
        assert memory[-1] <= 1.2 * memory[0], memory


@pytest.mark.soak
def test_ever_new_versions_leave_neither_memory_nor_files_behind(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0, 0.1, 0.01)
    versions = [registry.add_again("123"[n % 3]) for n in range(N_NEW_VERSIONS)]
    prepare_all(registry.uri)
    home = tmp_path / "bentoml"
    take_prepared(home, registry.uri, {"1"})
    with two_workers(tmp_path, registry, is_cold=True, SERVING_KEEP_VERSIONS="3") as service:
        pids = workers(service)
        memory: list[float] = []
        with Clients(service, registry, ("1", *versions), n=2) as clients:
            for version in versions:
                take_prepared(home, registry.uri, {version})  # as if another service had prepared it
                registry.promote(version)
                wait_answering(service, version)
                memory.append(memory_mb(service))
        print_figures(f"{N_NEW_VERSIONS} new versions", clients, memory)
        assert clients.wrong == []
        assert set(clients.answered) == {"1", *versions}
        assert workers(service) == pids, "a worker was started again"
        assert memory[-1] <= 1.2 * memory[2], memory
        store = home / "models" / NAME
        wait_until(
            lambda: (
                {path.parent.name.partition("-")[0] for path in store.glob("*/manifest.json")}
                == set(versions[-3:])
            ),
            20,
            "only the last three are kept",
        )


def test_requests_end_on_the_version_that_they_began_with_and_both_workers_swap_within_a_second(
    versions: Registry, tmp_path: Path
) -> None:
    versions.promote("1")
    with two_workers(tmp_path, versions) as service:
        wait_answering(service, "1")
        versions.promote("2")
        asked: dict[str, list[float]] = {"1": [], "2": []}
        answered: dict[str, list[float]] = {"1": [], "2": []}
        while len(answered["2"]) < 100 or not service.every_worker_serves("wine:2-"):
            began = time.monotonic()
            (version,) = versions_answering(service, 1)
            asked[version].append(began)
            answered[version].append(time.monotonic())
        assert asked["1"][-1] - answered["2"][0] < 1
        described = service.http.get("/v1/models").json()
        assert described["stale"] is None
        assert described["previous"].startswith("wine:1-")
        assert swaps(service) == {"swapped": 1, "refused": 0, "failed": 0}


def swaps(service: Service) -> dict[str, float]:
    """How many new versions had which outcome, however many workers there are."""
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(metrics(service))
        for sample in family.samples
        if sample.name == "model_swaps_total"
    }


@pytest.fixture
def serving_two(versions: Registry, tmp_path: Path) -> Iterator[tuple[Service, Registry]]:
    """Two workers that serve version 1 of a registry of the test's own, into which bad versions may go."""
    own = Registry(tmp_path / "own", 1.0)
    with two_workers(tmp_path, own) as service:
        wait_answering(service, "1")
        yield service, own


def test_a_bad_version_stays_out_and_the_one_that_answers_is_unharmed(
    serving_two: tuple[Service, Registry],
) -> None:
    """What is wrong with others: `test_rounds.py`."""
    service, registry = serving_two
    pids = workers(service)
    bad = registry.add(trapped("crash"))
    with Clients(service, registry, ("1",), n=2) as clients:
        registry.promote(bad)
        assert "SIGSEGV" in wait_until(lambda: refused(service).get(bad), 180, "it is refused")
        # Another worker may answer here, which looks up to a fifth of a second later.
        wait_until(lambda: "\nmodel_registry_stale 1.0" in metrics(service), 10, "it is measured")
        time.sleep(1)  # several rounds
    assert clients.wrong == []
    assert set(clients.answered) == {"1"}
    assert workers(service) == pids
    assert swaps(service) == {"swapped": 0, "refused": 1, "failed": 0}
    assert service.log.count(f"registry: wine version {bad} ") == 1
    registry.promote("1")
    wait_until(lambda: service.http.get("/v1/models").json()["stale"] is None, 30, "all is well again")
    wait_until(lambda: "\nmodel_registry_stale 0.0" in metrics(service), 10, "it is measured")


@pytest.mark.soak
def test_the_sync_process_may_be_killed_at_any_point_of_a_preparation(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", *(2.0**n for n in range(4)))
    chance = random.Random(0)
    killed: set[int] = set()
    with two_workers(tmp_path, registry) as service:
        wait_answering(service, "1")
        with Clients(service, registry, ("1", "2", "3", "4"), n=1) as clients:
            for n in range(N_KILLS):
                version = str(2 + n % 3)
                # Prepared anew each time.
                for prepared in (tmp_path / "bentoml" / "models" / NAME).glob(f"{version}-*"):
                    shutil.rmtree(prepared)
                (sync,) = wait_until(lambda: child_processes(service.process.pid, SYNC), 30, "a sync process")
                registry.promote(version)
                time.sleep(chance.uniform(0, 3))
                os.kill(sync, signal.SIGKILL)
                killed.add(sync)
                wait_until(
                    lambda sync=sync: sync not in child_processes(service.process.pid, SYNC), 30, "it is gone"
                )
            wait_answering(service, version)
        print(f"{N_KILLS} kills: {clients.answered.total()} requests, {len(clients.wrong)} wrong")
        assert clients.wrong == []
        assert len(killed) == N_KILLS


def test_of_two_promotions_within_a_second_the_last_wins_everywhere(
    versions: Registry, tmp_path: Path
) -> None:
    versions.promote("1")
    with two_workers(tmp_path, versions, is_cold=True) as service:
        wait_answering(service, "1")
        versions.promote("2")
        wait_until(lambda: "registry: wine version 2 " in service.log, 30, "version 2 is being prepared")
        versions.promote("1")
        wait_until(lambda: "registry now names another version" in service.log, 30, "it is given up")
        time.sleep(2)  # several rounds
        assert versions_answering(service, 30) == {"1"}
        assert not re.search(r"wine:2-\w+ answers now", service.log), "the first of the two was served"
