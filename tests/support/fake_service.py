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
    """Answers `/v1/models`, `/metrics` and, with feedback, `/v1/quality`."""

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
        self.quality: Callable[[], dict[str, Any]] | None = None
        """What it says at `/v1/quality`; without it, feedback is off."""
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
        if self.path == "/v1/quality":
            found = self.server.quality
            self.answer(b"{}", 404) if found is None else self.answer(json.dumps(found()).encode())
            return
        is_metrics = self.path == "/metrics"
        body = self.server.metrics() if is_metrics else json.dumps(self.server.describe()).encode()
        self.answer(body)


def compared(
    champion: str,
    challenger: str,
    n: int,
    accuracies: tuple[float, float],
    *,
    role: str = "challenger",
    is_paired: bool = False,
) -> dict[str, Any]:
    """Returns an answer of `/v1/quality` in which two versions were compared by accuracy.

    Args:
        champion: version in production.
        challenger: the other version.
        n: labels of each.
        accuracies: of both.
        role: of the other version.
        is_paired: whether both answered the same rows, of which the difference decides; no row is wrong in both.
    """
    old, new = ({"n": n, "mean": mean, "variance": mean * (1 - mean)} for mean in accuracies)
    change = accuracies[1] - accuracies[0]
    differing = 2 - sum(accuracies)
    difference = {"n": n, "mean": change, "variance": differing - change**2} if is_paired else None
    accuracy = {"champion": old, "challenger": new, "difference": difference, "verdict": "not yet"}
    comparison = {"champion": champion, "challenger": challenger, "role": role, "is_paired": is_paired}
    return {"model": NAME, "windows": [], "comparisons": [comparison | {"metrics": {"accuracy": accuracy}}]}


Run = Callable[..., tuple[int, str, str]]
"""Runs a script; returns its exit code and what it printed."""

Hook = Callable[[str, Callable[[int], None]], None]
"""Lets something happen after a request to the registry."""


def refuse(_: int = 0) -> None:
    raise MlflowException("the registry is down")
