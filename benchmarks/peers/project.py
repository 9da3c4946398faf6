"""This project: `bentoml serve` of this checkout."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import JSON, Answer, Request, dumps
from benchmarks.places import PROJECT_BIN, ROOT
from benchmarks.processes import Launch
from benchmarks.registry import tracking_uri
from benchmarks.rows import Model, Record

NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
NUMPY_TYPES = {"long": "i8", "integer": "i4", "double": "f8", "float": "f4", "boolean": "?"}


class Project:
    """One worker, with or without metrics, and with further settings."""

    kind = "project"
    forms: tuple[str, ...] = ("json", "npy", "arrow")

    def __init__(self, has_metrics: bool, settings: Mapping[str, str] | None = None) -> None:
        self.key = "project" if has_metrics else "project-no-metrics"
        self.name = "this project" if has_metrics else "this project, metrics off"
        self.note = "bentoml serve, SERVING_WORKERS=1, " + (
            "metrics on" if has_metrics else "SERVING_METRICS=false"
        )
        self._settings = {"SERVING_METRICS": "true" if has_metrics else "false", **(settings or {})}

    def environment(self) -> Path:
        """See `Peer`; `make` creates it."""
        return PROJECT_BIN

    def store(self, model: Model, work: Path) -> Path:
        """Returns the folder of its BentoML store, with the prepared models."""
        return work / "servers" / f"{self.key}-{model.name}" / "bentoml"

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """See `Peer`."""
        store = self.store(model, work)
        command = [str(PROJECT_BIN / "bentoml"), "serve", "service:ModelServer", "--working-dir", str(ROOT)]
        environment = {
            "PATH": f"{PROJECT_BIN}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": tracking_uri(work),
            "SERVING_MODEL_NAME": model.name,
            "SERVING_WORKERS": "1",
            "SERVING_TRUSTED_TYPES": "winsorizing.Winsorizer",
            "PYTHONPATH": str(ROOT / "benchmarks" / "models"),
            "BENTOML_HOME": str(store),
            **self._settings,
        }
        command += ["--host", "127.0.0.1", "--port", str(port)]
        return Launch(command, environment, store.parent, "/readyz")

    def request(self, records: Sequence[Record], model: Model, form: str = "json") -> Request:
        """See `Peer`."""
        if form == "npy":
            return Request("/v1/predict_batch", NPY, records_to_npy(records, model.columns))
        if form == "arrow":
            return Request("/v1/predict_batch", ARROW, records_to_arrow(records))
        return Request("/v1/predict", JSON, dumps({"instances": records}))

    def answer(self, body: bytes, model: Model) -> Answer | None:
        """See `Peer`."""
        predictions = json.loads(body)["predictions"]
        probabilities = [[row["probabilities"][name] for name in model.classes] for row in predictions]
        return Answer(probabilities, [str(row["label"]) for row in predictions])


def records_to_npy(records: Sequence[Record], columns: dict[str, str]) -> bytes:
    """Returns a structured array with the columns as fields, text as fixed-width Unicode."""
    import numpy as np

    arrays = {
        name: np.array([record[name] for record in records], dtype=NUMPY_TYPES.get(type_, "U"))
        for name, type_ in columns.items()
    }
    table = np.empty(len(records), dtype=[(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        table[name] = array
    out = io.BytesIO()
    np.save(out, table, allow_pickle=False)
    return out.getvalue()


def records_to_arrow(records: Sequence[Record]) -> bytes:
    """Returns an Arrow IPC stream of one record batch."""
    import pyarrow as pa

    batch = pa.RecordBatch.from_pylist(list(records))
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(out.getvalue())


def runtime_of(models: dict[str, Any]) -> str:
    """Returns the runtime in an answer of `/v1/models`, with its reason if there is one."""
    found = _find(models, "runtime")
    return str(found) if found is not None else "unknown"


def _find(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found = _find(item, key)
            if found is not None:
                return found
    return None
