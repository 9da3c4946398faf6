"""`mlflow models serve`, MLflow's own scoring server."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environments import ensure_environment
from benchmarks.peers.protocol import JSON, Answer, Request, dumps
from benchmarks.processes import Launch
from benchmarks.registry import ALIAS, tracking_uri
from benchmarks.rows import Model, Record


class MlflowServe:
    """One uvicorn worker in an existing environment, its fastest form."""

    key = "mlflow"
    name = "mlflow models serve"
    kind = "peer"
    note = "-w 1 --env-manager local, with uvloop and httptools; answers labels, it has no probabilities"
    forms: tuple[str, ...] = ("json",)

    def environment(self) -> Path:
        """See `Peer`."""
        return ensure_environment("mlflow")

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """See `Peer`."""
        bin_folder = self.environment()
        command = [str(bin_folder / "mlflow"), "models", "serve", "-m", f"models:/{model.name}@{ALIAS}"]
        command += ["--env-manager", "local", "-w", "1", "-h", "127.0.0.1", "-p", str(port)]
        environment = {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",  # it looks for uvicorn there
            "MLFLOW_TRACKING_URI": tracking_uri(work),
        }
        return Launch(command, environment, work / "servers" / f"{self.key}-{model.name}", "/ping")

    def request(self, records: Sequence[Record], model: Model, form: str = "json") -> Request:  # noqa: ARG002  # the protocol's
        """See `Peer`. Uses `dataframe_split`, the format that its documentation recommends."""
        split = {"columns": list(model.columns), "data": [list(record.values()) for record in records]}
        return Request("/invocations", JSON, dumps({"dataframe_split": split}))

    def answer(self, body: bytes, model: Model) -> Answer | None:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return Answer(labels=[str(label) for label in json.loads(body)["predictions"]])
