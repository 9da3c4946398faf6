"""Promotions beside a service that says of itself what a test wants it to say, over real HTTP."""

import json
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException

from tests.support.doubles import Double, Quiet
from tests.support.promotions import NAME


def counted(version: str, answered: int, failed: int = 0) -> bytes:
    """The metrics of a service that has counted so much; an answer takes a millisecond."""
    labels = f'model_name="{NAME}",model_version="{version}",role="champion"'
    return (
        f"model_prediction_latency_seconds_count{{{labels}}} {answered}\n"
        f"model_prediction_latency_seconds_sum{{{labels}}} {answered / 1000}\n"
        f'model_prediction_errors_total{{{labels},error_type="internal_error"}} {failed}\n'
    ).encode()


class FakeService(Double):
    """Answers `/v1/models` and `/metrics`."""

    def __init__(self, current: Callable[[], dict[str, str]], host: str = "127.0.0.1", port: int = 0) -> None:
        """Follows at once.

        Args:
            current: the aliases of the registered model.
            host: the address that it listens at.
            port: 0 takes one that is free.
        """
        super().__init__(_Handler, host, port)
        self.current = current
        self.metrics: Callable[[], bytes] = lambda: b""
        self.refused: list[dict[str, str]] = []
        self.stale: str | None = None
        self.is_dead = False
        self.percent = 100.0
        self.model = NAME
        self.aliases: dict[str, str | None] = {
            "champion": "production",
            "challenger": "challenger",
            "shadow": "shadow",
        }
        self.on_look: Callable[[], Any] = lambda: None
        self.hosts: list[str] = []
        """The `Host` headers of the requests."""

    def describe(self) -> dict[str, Any]:
        """What it says at `/v1/models`."""
        self.on_look()
        aliases = self.current()
        models = [
            {"name": self.model, "role": "champion", "version": aliases.get("production"), "percent": 100.0}
        ]
        if "challenger" in aliases:
            models.append({"role": "challenger", "version": aliases["challenger"], "percent": self.percent})
        if "shadow" in aliases and self.aliases["shadow"] == "shadow":
            models.append({"role": "shadow", "version": aliases["shadow"], "percent": self.percent})
        return {"aliases": self.aliases, "models": models, "refused": self.refused, "stale": self.stale}


class _Handler(Quiet):
    server: FakeService

    def do_GET(self) -> None:
        if self.server.is_dead:
            self.close_connection = True
            return
        self.server.hosts.append(self.headers["Host"])
        is_metrics = self.path == "/metrics"
        body = self.server.metrics() if is_metrics else json.dumps(self.server.describe()).encode()
        self.answer(body)


Run = Callable[..., tuple[int, str, str]]
"""Runs a script; returns its exit code and what it printed."""

Hook = Callable[[str, Callable[[int], None]], None]
"""Lets something happen after a request to the registry."""


def refuse(_: int = 0) -> None:
    raise MlflowException("the registry is down")
