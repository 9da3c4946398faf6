"""One run of the smoke test: what is expected of the service, and its answers so far."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scripts.smoke import Broken, NoAnswer
from scripts.smoke.client import REQUEST_SECONDS, Answer, Client

N_LOOKS = 4
"""Connections per check: each reaches one of several workers, or pods."""

PAUSE_SECONDS = 0.5
"""Polling interval while a service is not in the expected state."""

JSON = "application/json"


class Example(NamedTuple):
    """Rows to predict, and where they are from."""

    rows: list[Any]
    source: str


class Expected(NamedTuple):
    """Expectations from the command line."""

    name: str | None = None
    version: str | None = None
    timeout_seconds: float = 60
    max_latency_ms: float | None = None
    example: Example | None = None
    v1_only: bool = False
    no_metrics: bool = False


class SmokeRun:
    """Sends requests and keeps their answers."""

    def __init__(
        self, url: str, headers: Mapping[str, str], expected: Expected, tell: Callable[[str], None]
    ) -> None:
        """Starts the run and its timeout.

        Args:
            url: of the service.
            headers: for each request.
            expected: of the service.
            tell: prints what the run waits for.
        """
        self.url = url
        self._tell = tell
        self._is_waiting = False
        self.expected = expected
        self.client = Client(url, headers)
        self._give_up = time.monotonic() + expected.timeout_seconds
        self.models: dict[str, dict[str, Any]] = {}
        """What `/v1/models` says, by role."""
        self.instances: list[Any] = []
        """The rows of the example."""
        self.documented: set[str] | None = None
        """The keys of a prediction in the OpenAPI document."""
        self.routing: dict[str, str] = {}
        """The header that routes all requests to the same version."""
        self.answer: Answer | None = None
        """The answer to the example."""
        self.predictions: list[dict[str, Any]] = []
        """The predictions in it."""
        self.alone: list[Any] = []
        """The numbers of each row, sent alone."""

    @property
    def champion(self) -> dict[str, Any]:
        """The champion, as the service describes it."""
        return self.models["champion"]

    @property
    def answering(self) -> dict[str, Any]:
        """The version that has answered: the challenger, if it gets all requests."""
        role = self.answer.headers.get("X-Model-Role") if self.answer else None
        return self.models.get(role or "champion", self.champion)

    def pause(self, missing: str) -> bool:
        """Pauses because something is missing; returns whether there is time for another attempt."""
        if self._give_up - time.monotonic() <= PAUSE_SECONDS:
            return False
        if not self._is_waiting:
            self._is_waiting = True
            self._tell(f"waiting for up to {self.expected.timeout_seconds:g} s: {missing}")
        time.sleep(PAUSE_SECONDS)
        return True

    def get(self, path: str) -> Answer:
        """Returns the answer to a GET, within the time that is left.

        Raises:
            NoAnswer: there is none.
        """
        return self.client.ask(path, seconds=min(REQUEST_SECONDS, max(1, self._give_up - time.monotonic())))

    def post(self, path: str, body: bytes, media_type: str = JSON, **headers: str) -> Answer:
        """Returns the answer to a POST.

        Raises:
            NoAnswer: there is none.
        """
        return self.client.ask(path, body, {"Content-Type": media_type, **self.routing, **headers})

    def predict(self, instances: list[Any], **headers: str) -> Answer:
        """Returns the answer with the predictions of rows.

        Raises:
            NoAnswer: there is none.
        """
        return self.post("/v1/predict", json.dumps({"instances": instances}).encode(), **headers)

    def wait(self, path: str, lacks: Callable[[Answer], str]) -> None:
        """Waits until a page lacks nothing over several connections in a row.

        Args:
            path: of the page.
            lacks: returns what is missing; empty if nothing is.

        Raises:
            Broken: something is still missing at the timeout.
        """
        while True:
            missing = ""
            for _ in range(N_LOOKS):
                try:
                    missing = lacks(self.get(path))
                except NoAnswer as error:
                    missing = f"{path}: {error}"
                if missing:
                    break
            if not missing:
                return
            if not self.pause(missing):
                raise Broken(f"{missing}; waited {self.expected.timeout_seconds:g} s")
