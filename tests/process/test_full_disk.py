"""A disk for temporary files that is full when a worker begins: it answers, says so in a line, and is seen again."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disks import small_disk
from tests.support.environment import wait_until
from tests.support.models import frame
from tests.support.processes import WORKER, child_processes
from tests.support.services import running_service

ROWS = frame("wine").iloc[:2].to_dict("records")
ROWS_COUNTED = '\nmodel_predictions_total{model_name="wine",model_version="1",role="champion"} '


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk, whose path is short enough for the sockets that the service makes there."""
    with tempfile.TemporaryDirectory(prefix="disk-") as folder, small_disk(Path(folder, "disk"), 3) as disk:
        yield disk


def fill(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.close(descriptor)


def test_a_worker_that_begins_on_a_full_disk_answers_and_is_seen_again(
    registry_uri: str, disk: Path, tmp_path: Path
):
    with running_service(
        tmp_path, MLFLOW_TRACKING_URI=registry_uri, SERVING_MODEL_NAME="wine", TMPDIR=str(disk)
    ) as service:
        service.wait_ready()
        fill(disk / "filler")
        (killed,) = child_processes(service.process.pid, WORKER)
        os.kill(killed, signal.SIGKILL)
        n_before = len(service.log)

        def answers() -> bool:
            response = service.answers("/readyz", 200)
            return response is not None and killed not in child_processes(service.process.pid, WORKER)

        wait_until(answers, 60, "another worker is ready")
        (worker,) = child_processes(service.process.pid, WORKER)
        service.predict(ROWS)
        wait_until(lambda: "metrics of this worker are not shown" in service.log, 20, "the log says so")
        assert ROWS_COUNTED + "2.0" not in service.http.get("/metrics").text
        said = [line for line in service.log[n_before:].splitlines() if "[ERROR]" in line]
        assert len(said) == 2  # the metrics, and what it has loaded
        assert all("No space left on device" in line for line in said)
        assert "Traceback" not in service.log[n_before:]
        (disk / "filler").unlink()
        wait_until(lambda: ROWS_COUNTED + "2.0" in service.http.get("/metrics").text, 20, "it is counted")
        wait_until(service.every_worker_serves, 20, "the worker has told what it has loaded")
        assert child_processes(service.process.pid, WORKER) == [worker]
