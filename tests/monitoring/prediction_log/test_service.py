"""A real service that logs: what any reader of Parquet finds after swaps, crashes and a deleted folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow.dataset as ds
import pytest

from serving.monitoring.prediction_log.reading import read_log
from tests.support.environment import ROOT, clean_environment, wait_until
from tests.support.models import frame
from tests.support.processes import WORKER, child_processes
from tests.support.promotions import NAME, Registry, wait_answering
from tests.support.services import Service, running_service

WRITER = "serving.monitoring.prediction_log"
WINE = frame("wine")
RECORDS = WINE.to_dict("records")


def metric(service: Service, name: str) -> float:
    for line in service.http.get("/metrics").text.splitlines():
        if line.startswith(f"model_prediction_log_{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def post(
    service: Service, rows: list[dict[str, Any]], request_id: str = "", **headers: str
) -> dict[str, Any]:
    headers |= {"x-request-id": request_id} if request_id else {}
    answer = service.http.post("/v1/predict", json={"instances": rows}, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_every_row_is_logged_over_a_swap_with_its_version_and_answer(tmp_path: Path):
    registry = Registry(tmp_path / "own", 1.0, 0.001)
    folder = tmp_path / "log"
    settings = {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "SERVING_LOG_PREDICTIONS": str(folder),
        "SERVING_WORKERS": "2",
        "SERVING_ALLOW_PICKLE": "false",  # in the sandbox
    }
    answers: dict[str, dict[str, Any]] = {}
    with running_service(tmp_path / "service", **settings) as service:
        service.wait_ready()
        for first in range(0, 100, 5):
            one = post(
                service, RECORDS[first : first + 5], f"first-{first}", **{"x-routing-key": f"key {first}"}
            )
            answers[f"first-{first}"] = one
        registry.promote("2")
        wait_answering(service, "2")
        for first in range(0, 100, 5):
            answers[f"second-{first}"] = post(service, RECORDS[first : first + 5], f"second-{first}")
        wait_until(lambda: metric(service, "rows_total") >= 200, 10, "all rows are written")
    logged = [
        row
        for row in ds.dataset(folder, partitioning="hive").to_table().to_pylist()
        if row["request_id"] in answers
    ]
    assert len(logged) == 200
    for row in logged:
        answer = answers[row["request_id"]]
        sent = int(row["request_id"].partition("-")[2]) + row["row"]
        assert {name: row[f"input_{name}"] for name in WINE.columns} == RECORDS[sent]
        assert str(row["version"]) == answer["model"]["version"]
        said = answer["predictions"][row["row"]]
        assert row["label"] == str(said["label"])
        assert dict(row["probabilities"]) == said["probabilities"]
        assert row["key"] == (f"key {sent - row['row']}" if "first" in row["request_id"] else None)
        assert (row["role"], row["model"]) == ("champion", NAME)


@pytest.fixture
def logging_service(registry_uri: str, tmp_path: Path) -> Any:
    settings = {
        "MLFLOW_TRACKING_URI": registry_uri,
        "SERVING_MODEL_NAME": "wine",
        "SERVING_LOG_PREDICTIONS": str(tmp_path / "log"),
    }
    with running_service(tmp_path / "service", **settings) as service:
        yield service.wait_ready()


def test_after_killing_worker_writer_and_service_only_the_last_second_is_missing(
    logging_service: Service, tmp_path: Path
):
    service, folder = logging_service, tmp_path / "log"
    post(service, RECORDS[:3], "a")
    wait_until(lambda: metric(service, "rows_total") == 3, 10, "it is written")
    (worker,) = child_processes(service.process.pid, WORKER)
    os.kill(worker, signal.SIGKILL)

    def answers() -> Any:
        try:
            return post(service, RECORDS[:2], "b")
        except httpx.TransportError:
            return None

    wait_until(answers, 60, "another worker answers")
    wait_until(lambda: metric(service, "rows_total") == 5, 10, "the new worker logs")
    (writer,) = child_processes(service.process.pid, WRITER)
    os.kill(writer, signal.SIGKILL)
    post(service, RECORDS[:4], "c")  # waits in the worker for the next writer
    wait_until(lambda: read_log(folder).num_rows == 9, 30, "the next writer gets the rows")
    post(service, RECORDS[:1], "d")
    wait_until(lambda: read_log(folder).num_rows == 10, 10, "it goes on")
    # The whole pod, out of memory.
    for pid in [*child_processes(service.process.pid, WORKER), *child_processes(service.process.pid, WRITER)]:
        os.kill(pid, signal.SIGSTOP)
    for pid in [*child_processes(service.process.pid, WORKER), *child_processes(service.process.pid, WRITER)]:
        os.kill(pid, signal.SIGKILL)
    os.kill(service.process.pid, signal.SIGKILL)
    assert sorted(read_log(folder)["request_id"].to_pylist()) == [*"aaabbccccd"]


def test_a_deleted_folder_stops_the_log_only_and_scripts_read_it(logging_service: Service, tmp_path: Path):
    service, folder = logging_service, tmp_path / "log"
    shutil.rmtree(folder)
    post(service, RECORDS[:3])
    wait_until(lambda: metric(service, "failing") == 1, 20, "a metric says so")
    post(service, RECORDS[:2], "waiting")
    assert service.log.count("the prediction log stops") == 1
    folder.mkdir()
    wait_until(lambda: metric(service, "failing") == 0, 20, "it goes on")
    post(service, RECORDS[:1], "after")
    wait_until(lambda: read_log(folder).num_rows >= 3, 10, "rows are there")
    script = [sys.executable, "scripts/predictions.py", "--folder", str(folder)]
    shown = subprocess.run(
        [*script, "--request-id", "waiting", "--json"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(row["row"], row["version"], row["input_alcohol"]) for row in rows] == [
        (0, "1", RECORDS[0]["alcohol"]),
        (1, "1", RECORDS[1]["alcohol"]),
    ]
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1)
    table = subprocess.run(
        script, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert "after" in table.stdout.splitlines()[-1]


def test_off_it_is_not_imported_and_no_process_runs(registry_uri: str, tmp_path: Path):
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import service, sys; print([n for n in sys.modules if n.startswith('{WRITER}')])",
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == "[]"
