"""Requests made from the OpenAPI document by Schemathesis: what it promises is kept, for every kind of column.

FUZZ_SECONDS and FUZZ_SEED as in `test_bodies`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, DataType, Map, Object, Property

from tests.fuzz.watching import Watched
from tests.support.environment import ROOT, clean_environment
from tests.support.models import REQUIREMENTS, fill_registry
from tests.support.services import Service, running_service

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
SEED = os.environ.get("FUZZ_SEED", "2026")

COLUMNS = [
    *(ColSpec(kind, kind, required=True) for kind in ("double", "float", "long", "integer", "boolean")),
    *(ColSpec(kind, kind, required=False) for kind in ("string", "datetime", "binary")),
    ColSpec(Array(DataType.double), "array"),
    ColSpec(Array(Array(DataType.string)), "arrays", required=False),
    ColSpec(Object([Property("x", DataType.long), Property("y", DataType.string, required=False)]), "object"),
    ColSpec(Map(DataType.boolean), "map", required=False),
    ColSpec(AnyType(), "any", required=False),
]
PARAMS = [ParamSpec("depth", "long", 3), ParamSpec("rates", "double", [0.5], shape=(-1,))]


class Anything(mlflow.pyfunc.PythonModel):
    """Has an answer to all that fits its signature, so that every refusal is the service's."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return [str(len(model_input))] * len(model_input)


def anything(name: str) -> Any:
    signature = ModelSignature(
        Schema(COLUMNS), outputs=Schema([ColSpec("string")]), params=ParamSchema(PARAMS)
    )
    return mlflow.pyfunc.log_model(
        python_model=Anything(), name=name, registered_model_name=name, **REQUIREMENTS, signature=signature
    )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    uri = fill_registry(tmp_path / "registry", {"anything": anything})
    settings = {"SERVING_MODEL_NAME": "anything", "SERVING_ALLOW_PICKLE": "true"}
    with running_service(tmp_path, MLFLOW_TRACKING_URI=uri, **settings) as running:
        yield running.wait_ready()


def test_the_document_is_true(service: Service, tmp_path: Path) -> None:
    """Valid requests are answered as it says, others are refused as it says; and none is a mistake of the service."""
    watched = Watched(service)
    st = Path(sys.executable).with_name("st")
    options = (
        f"--checks all --seed {SEED} --max-examples {5 * SECONDS:.0f} --max-time {SECONDS:.0f} --no-color"
    )
    command = [str(st), "run", f"{service.url}/docs.json", *options.split()]
    environment = clean_environment() | {
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.datetimes",
    }
    with (tmp_path / "printed").open("w+") as printed:
        running = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
        watched.watch(lambda: running.poll() is None)
        printed.seek(0)
        text = printed.read()
    print(text, watched)
    assert running.returncode == 0, text
    assert "Operations:       9 selected / 9 total" in text
    watched.check(in_flight_mb=10)
