"""FastAPI and joblib as in tutorials; and the two floors, which serve no model."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.protocol import Answer, JoblibPeer
from benchmarks.processes import Launch
from benchmarks.rows import Model

UVICORN = ("--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools", "--no-access-log")


class UvicornPeer(JoblibPeer):
    """An ASGI application of `benchmarks/services` on one uvicorn worker."""

    requirements = "fastapi"
    application: str
    options: Sequence[str] = UVICORN

    def launch(self, model: Model, port: int, work: Path) -> Launch:
        """See `Peer`."""
        command = [str(self.environment() / "uvicorn"), f"benchmarks.services.{self.application}:app"]
        return self.launch_command(
            [*command, "--port", str(port), *self.options], model, work, ready_path="/health"
        )


class FastapiJoblib(UvicornPeer):
    """See `benchmarks/services/fastapi_joblib.py`."""

    key = "fastapi"
    name = "FastAPI + joblib"
    kind = "peer"
    note = "as the tutorials do: pydantic body, DataFrame, predict_proba; uvicorn without access log"
    application = "fastapi_joblib"


class AsgiEcho(UvicornPeer):
    """See `benchmarks/services/asgi_echo.py`."""

    key = "asgi-echo"
    name = "raw ASGI echo"
    kind = "floor"
    note = "uvicorn, uvloop, httptools; sends the body back"
    application = "asgi_echo"

    def answer(self, body: bytes, model: Model) -> Answer | None:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return None


class FastapiEcho(UvicornPeer):
    """See `benchmarks/services/fastapi_echo.py`."""

    key = "fastapi-echo"
    name = "FastAPI echo"
    kind = "floor"
    note = "uvicorn, uvloop, httptools; the same pydantic body as FastAPI + joblib, validated and sent back"
    application = "fastapi_echo"

    def answer(self, body: bytes, model: Model) -> Answer | None:  # noqa: ARG002  # the protocol's
        """See `Peer`."""
        return None
