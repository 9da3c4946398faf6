"""What a start looks like when something is missing: one clear line, up and not ready, and recovery."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from tests.support.environment import ROOT, clean_environment, free_port, wait_until
from tests.support.processes import ATTEMPT, SYNC, WORKER, child_processes
from tests.support.promotions import NAME, Registry
from tests.support.services import Service, running_service


def said_once(service: Service, reason: str) -> None:
    """The log has the reason in one line, no trace, and not again at every attempt."""
    assert "Traceback" not in service.log
    assert service.log.count("not ready: ") == 1, service.log
    (line,) = [line for line in service.log.splitlines() if "not ready: " in line]
    assert reason.removeprefix("no model is ready: ") in line


def test_no_registry_at_the_path(serve: Callable[..., Service], tmp_path: Path) -> None:
    service = serve(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/nowhere.db")
    reason = service.wait_reason("there is no registry at")
    assert "MLFLOW_TRACKING_URI" in reason
    assert not (tmp_path / "nowhere.db").exists(), "an empty registry was made of a typo"
    said_once(service, reason)
    assert service.http.get("/livez").status_code == 200
    response = service.http.post("/v1/predict", json={"instances": [{}]})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_not_ready"
    assert int(response.headers["retry-after"]) > 0
    assert service.http.get("/v1/models").json() == {
        "ready": False,
        "reason": reason.removeprefix("no model is ready: "),
        "aliases": {"champion": "production", "challenger": None, "shadow": None},
        "stale": None,
        "held_back": {},
        "registry_asked_at": None,
        "previous": None,
        "refused": [],
        "autopilot": None,
        "models": [],
    }
    assert "\nmodel_ready 0.0" in service.http.get("/metrics").text


def test_alias_that_is_set_later_is_found(serve: Callable[..., Service], tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0)
    mlflow.MlflowClient(registry.uri, registry.uri).delete_registered_model_alias(NAME, "production")
    service = serve(MLFLOW_TRACKING_URI=registry.uri, SERVING_MODEL_NAME=NAME)
    assert "'production'" in service.wait_reason("has the alias")
    registry.promote("1")
    service.wait_ready()
    wait_until(lambda: "wine version 1 answers on" in service.log, 20, "the greeting")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SERVING_SYNC_SECONDS", "soon"),
        ("SERVING_WORKERS", "0"),
        ("SERVING_MAX_BODY_MB", "inf"),
        ("SERVING_PREPROCESSING_MISMATCH", "ignore"),
    ],
)
def test_setting_that_cannot_be_used_ends_the_start_with_one_line(variable: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "--port", str(free_port())],
        cwd=ROOT,
        env=clean_environment() | {variable: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith(f"error: {variable}: ")
    assert repr(value) in line


def test_two_services_share_a_store_and_prepare_once(registry: str, tmp_path: Path) -> None:
    environment = {
        "MLFLOW_TRACKING_URI": registry,
        "SERVING_MODEL_NAME": "wine",
        "BENTOML_HOME": str(tmp_path / "shared"),
    }
    with (
        running_service(tmp_path / "a", is_cold=True, **environment) as first,
        running_service(tmp_path / "b", is_cold=True, **environment, SERVING_WORKERS="2") as second,
    ):
        first.wait_ready()
        second.wait_ready()
        prepared = [service.log.count("prepared wine version 1") for service in (first, second)]
        assert sum(prepared) == 1, prepared
        folders = [path for path in (tmp_path / "shared" / "models" / "wine").iterdir() if path.is_dir()]
        assert len(folders) == 1
        # Each counts its own requests, though the store is one.
        first.http.post("/v1/predict", json={"instances": [{}]})
        assert [
            "\nmodel_prediction_errors_total{" in service.http.get("/metrics").text
            for service in (first, second)
        ] == [True, False]


def test_killed_preparing_process_leaves_nothing_and_is_repeated(registry: str, tmp_path: Path) -> None:
    home = tmp_path / "a" / "bentoml"
    with running_service(
        tmp_path / "a", is_cold=True, MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="cancer"
    ) as service:
        aside = home / "preparing"
        wait_until(
            lambda: list(aside.glob("*.tmp")) if aside.exists() else None, 60, "a preparation under way"
        )
        (attempt,) = child_processes(service.process.pid, ATTEMPT)
        os.kill(attempt, signal.SIGKILL)
        assert not list((home / "models").rglob("manifest.json"))
        service.wait_ready()
        assert not list(aside.glob("*.tmp"))


@pytest.fixture(scope="module")
def wine_service(
    registry_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Path]]:
    """A service, with a mistyped setting, and its BENTOML_HOME."""
    folder = tmp_path_factory.mktemp("wine")
    with running_service(
        folder, MLFLOW_TRACKING_URI=registry_uri, SERVING_MODEL_NAME="wine", SERVING_MODEL_ALAIS="staging"
    ) as service:
        yield service.wait_ready(), folder / "bentoml"


def test_mistyped_setting_is_warned_about(wine_service: tuple[Service, Path]) -> None:
    service, _ = wine_service
    assert "unknown setting SERVING_MODEL_ALAIS; did you mean SERVING_MODEL_ALIAS?" in service.log


def test_without_a_secret_nobody_may_wake_the_sync_process(wine_service: tuple[Service, Path]) -> None:
    response = wine_service[0].http.post("/v1/sync", content=b"{}")
    assert response.status_code == 403
    assert "SERVING_WEBHOOK_SECRET" in response.json()["error"]["message"]


def test_prepared_model_shows_in_bentoml(wine_service: tuple[Service, Path], registry: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "bentoml", "models", "get", "wine"],
        env=clean_environment() | {"BENTOML_HOME": str(wine_service[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    version = mlflow.MlflowClient().get_model_version("wine", "1")
    assert "mlflow.version: '1'" in shown
    assert str(version.run_id) in shown


def test_killed_sync_process_is_started_again(wine_service: tuple[Service, Path]) -> None:
    service, _ = wine_service
    (sync,) = child_processes(service.process.pid, SYNC)
    os.kill(sync, signal.SIGKILL)

    def successor() -> bool:
        found = child_processes(service.process.pid, SYNC)
        return bool(found) and found != [sync]

    wait_until(successor, 20, "another sync process")
    assert service.http.get("/readyz").status_code == 200


def test_worker_recovers_when_its_prepared_model_was_deleted(wine_service: tuple[Service, Path]) -> None:
    service, home = wine_service
    n_prepared = service.log.count("prepared wine version 1")
    shutil.rmtree(home / "models" / "wine")
    (worker,) = child_processes(service.process.pid, WORKER)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "is gone from the model store" in service.log, 30, "it is noticed")
    wait_until(lambda: service.log.count("prepared wine version 1") > n_prepared, 60, "it is prepared again")
    service.wait_ready()
    assert "\nmodel_ready 1.0" in service.http.get("/metrics").text


def test_the_sync_process_ends_with_the_service_however_long_it_would_sleep(
    registry: str, tmp_path: Path
) -> None:
    with running_service(
        tmp_path / "a",
        MLFLOW_TRACKING_URI=registry,
        SERVING_MODEL_NAME="wine",
        SERVING_SYNC_SECONDS="3600",
    ) as service:
        service.wait_ready()
        (sync,) = child_processes(service.process.pid, SYNC)
    wait_until(lambda: not Path(f"/proc/{sync}").exists(), 30, "the sync process is gone")


def test_service_takes_its_processes_along_when_killed(registry: str, tmp_path: Path) -> None:
    with running_service(tmp_path / "a", MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/nowhere.db") as service:
        service.wait_reason("there is no registry")
        (sync,) = wait_until(lambda: child_processes(service.process.pid, SYNC), 30, "a sync process")
        os.kill(service.process.pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{sync}").exists(), 30, "the sync process is gone")
        wait_until(lambda: not service.answers("/livez", 200), 30, "the port is free again")
