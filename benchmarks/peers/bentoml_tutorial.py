"""BentoML as in its tutorial, without and with adaptive batching."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.protocol import JSON, Answer, JoblibPeer, Request, dumps
from benchmarks.processes import Launch
from benchmarks.rows import Model, Record


class BentomlTutorial(JoblibPeer):
    """See `benchmarks/services/bentoml_tutorial.py`."""

    kind = "peer"
    requirements = "bentoml"

    def __init__(self, is_batching: bool) -> None:
        self.key = "bentoml-batching" if is_batching else "bentoml"
        self.name = "BentoML tutorial, batchable" if is_batching else "BentoML tutorial"
        self.note = "@bentoml.api, default configuration, with uvloop and httptools"
        if is_batching:
            self.note = "batchable, max_batch_size 64, max_latency_ms 200, with uvloop and httptools"
        self._service = "BatchableChurn" if is_batching else "Churn"

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """See `Peer`."""
        bentoml = str(self.environment() / "bentoml")
        command = [bentoml, "serve", f"benchmarks.services.bentoml_tutorial:{self._service}"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        return self.launch_command(command, model, work, "/readyz")

    def request(self, records: Sequence[Record], model: Model, form: str = "json") -> Request:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return Request("/predict", JSON, dumps({"rows": records}))

    def answer(self, body: bytes, model: Model) -> Answer | None:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return Answer(probabilities=json.loads(body))
