"""LitServe with batching."""

from pathlib import Path

from benchmarks.peers.protocol import JoblibPeer
from benchmarks.processes import Launch
from benchmarks.rows import Model


class LitServe(JoblibPeer):
    """See `benchmarks/services/litserve_joblib.py`."""

    key = "litserve"
    name = "LitServe, batching"
    kind = "peer"
    note = "max_batch_size 64, batch_timeout 2 ms; a server and an inference process"
    requirements = "litserve"

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """See `Peer`."""
        python = str(self.environment() / "python")
        command = [python, "-m", "benchmarks.services.litserve_joblib", str(port)]
        return self.launch_command(command, model, work, "/health")
