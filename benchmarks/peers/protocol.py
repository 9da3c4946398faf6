"""The benchmark's interface to a server: how to start it, what to send, and how to read its answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.environments import ensure_environment
from benchmarks.places import ROOT
from benchmarks.processes import Launch
from benchmarks.rows import Model, Record

JSON = "application/json"


class Request(NamedTuple):
    """A `POST`."""

    path: str
    content_type: str
    body: bytes


class Answer(NamedTuple):
    """A server's answer for some rows: probabilities in the order of the model's classes, or labels only."""

    probabilities: list[list[float]] | None = None
    labels: list[str] | None = None


class Peer(Protocol):
    """A server under test."""

    key: str
    """For the command line."""
    name: str
    kind: str
    """`project`, `peer` or `floor`."""
    note: str
    """What a reader needs to judge the numbers."""
    forms: tuple[str, ...]
    """Formats of bodies that it accepts: `json`, `npy`, `arrow`."""

    def environment(self) -> Path:
        """Returns the `bin` folder of its virtual environment; installs it if needed."""

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """Returns how to start it with a model; writes the files it needs."""

    def request(self, records: Sequence[Record], model: Model, form: str = "json") -> Request:
        """Returns the request for predictions of these rows."""

    def answer(self, body: bytes, model: Model) -> Answer | None:
        """Reads an answer to a JSON request; None for a floor, which has no model."""


class JoblibPeer:
    """Base of the servers whose code is in `benchmarks/services` and loads a joblib file."""

    key: str
    forms: tuple[str, ...] = ("json",)
    requirements: str
    """The name of its file in `benchmarks/requirements`."""

    def environment(self) -> Path:
        """See `Peer`."""
        return ensure_environment(self.requirements)

    def launch_command(self, command: list[str], model: Model, work: Path, ready_path: str) -> Launch:
        """Returns a launch whose environment points to the services' code, the model and the model's own code."""
        folder = work / "servers" / f"{self.key}-{model.name}"
        environment = {
            # The joblib file names the modules of the model's own code; they were logged with it.
            "PYTHONPATH": f"{ROOT}:{model.folder / 'mlflow' / 'code'}",
            "BENCHMARK_MODEL": str(model.folder / "model.joblib"),
            "BENCHMARK_FACTS": str(model.facts_file),
            "BENTOML_HOME": str(folder / "bentoml"),
        }
        return Launch(command, environment, folder, ready_path)

    def request(self, records: Sequence[Record], model: Model, form: str = "json") -> Request:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return Request("/predict", JSON, dumps({"instances": records}))

    def answer(self, body: bytes, model: Model) -> Answer | None:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return Answer(probabilities=json.loads(body)["probabilities"])


def dumps(value: Any) -> bytes:
    """Returns JSON in one line without spaces, as JavaScript clients write it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
