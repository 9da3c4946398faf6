"""MLServer with its MLflow runtime, over the Open Inference Protocol."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import ensure_environment
from benchmarks.peers.protocol import JSON, Answer, Request, dumps
from benchmarks.processes import Launch, free_port
from benchmarks.rows import Model, Record

DATATYPES = {"long": "INT64", "integer": "INT32", "double": "FP64", "float": "FP32", "boolean": "BOOL"}
"""The protocol's name of each MLflow type; text is BYTES with the content type `str`."""


class MlServer:
    """Default `parallel_workers`: one process receives the requests, another runs the model."""

    kind = "peer"
    forms: tuple[str, ...] = ("json",)

    def __init__(self, is_batching: bool) -> None:
        self.key = "mlserver-batching" if is_batching else "mlserver"
        self.name = "MLServer, adaptive batching" if is_batching else "MLServer"
        self.note = "mlflow runtime, parallel_workers 1 (a server and an inference process); answers labels"
        if is_batching:
            self.note += "; max_batch_size 64, max_batch_time 5 ms"
        self._is_batching = is_batching

    def environment(self) -> Path:
        """See `Peer`."""
        return ensure_environment("mlserver")

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """See `Peer`."""
        bin_folder = self.environment()
        folder = work / "servers" / f"{self.key}-{model.name}"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 1,
            "debug": False,  # the default logs each request
        }
        model_settings: dict[str, Any] = {
            "name": model.name,
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": str(model.folder / "mlflow")},
        }
        if self._is_batching:
            model_settings |= {"max_batch_size": 64, "max_batch_time": 0.005}
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model_settings))
        return Launch(
            [str(bin_folder / "mlserver"), "start", str(folder)],
            {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
            folder,
            f"/v2/models/{model.name}/ready",
        )

    def request(self, records: Sequence[Record], model: Model, form: str = "json") -> Request:  # noqa: ARG002  # the protocol's
        """See `Peer`. One input per column; the content type `pd` combines them."""
        inputs = [
            {
                "name": name,
                "shape": [len(records), 1],
                "datatype": DATATYPES.get(type_, "BYTES"),
                "data": [record[name] for record in records],
            }
            | ({} if type_ in DATATYPES else {"parameters": {"content_type": "str"}})
            for name, type_ in model.columns.items()
        ]
        body = {"parameters": {"content_type": "pd"}, "inputs": inputs}
        return Request(f"/v2/models/{model.name}/infer", JSON, dumps(body))

    def answer(self, body: bytes, model: Model) -> Answer | None:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return Answer(labels=[str(label) for label in json.loads(body)["outputs"][0]["data"]])
