"""A real service that logs: what a reader of Parquet finds, after swaps, crashes and full disks."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.support.environment import wait_until
from tests.support.models import frame
from tests.support.services import Service, running_service

ROWS = frame("wine").head(6)


def parquet(folder: Path) -> pa.Table:
    """The rows that any reader of Parquet finds."""
    return ds.dataset(folder, partitioning="hive").to_table().sort_by("row")


def test_smoke(registry_uri: str, tmp_path: Path):
    folder = tmp_path / "log"
    with running_service(
        tmp_path, MLFLOW_TRACKING_URI=registry_uri, SERVING_MODEL_NAME="wine", SERVING_LOG_PREDICTIONS=str(folder), SERVING_WORKERS="2", SERVING_ALLOW_PICKLE="false"
    ) as service:
        service.wait_ready()
        service.predict(ROWS.to_dict("records"))
        import time; time.sleep(1)
        print(service.http.get("/metrics").text)
        print(service.log)
    print(service.log)
    t = parquet(folder)
    print(t.to_pandas().T.to_string())
    assert 0
