"""One run of the smoke test: what is expected of the service, and what it has said so far."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scripts.smoke import Broken, NoAnswer
from scripts.smoke.client import REQUEST_SECONDS, Answer, Client

N_LOOKS = 4
"""A service has several workers, or pods, and each connection comes to one of them."""

PAUSE_SECONDS = 0.5
"""Between two questions to a service that is not where it is expected yet."""

JSON = "application/json"


class Example(NamedTuple):
    """Rows to ask for, and where they are from."""

    rows: list[Any]
    source: str


class Expected(NamedTuple):
    """What the command line claims."""

    name: str | None = None
    version: str | None = None
    timeout_seconds: float = 60
    max_latency_ms: float | None = None
    example: Example | None = None
    v1_only: bool = False
    no_metrics: bool = False


class SmokeRun:
    """Asks, and remembers."""

    def __init__(
        self, url: str, headers: Mapping[str, str], expected: Expected, tell: Callable[[str], None]
    ) -> None:
        """Begins; what is waited for counts from here.

        Args:
            url: of the service.
            headers: for each request.
            expected: of the service.
            tell: prints that something is waited for.
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
        """The keys of a prediction, as the OpenAPI document has them."""
        self.routing: dict[str, str] = {}
        """A header that has all requests answered by the same version."""
        self.answer: Answer | None = None
        """To the example."""
        self.predictions: list[dict[str, Any]] = []
        """In it."""
        self.alone: list[Any] = []
        """The numbers of each row, asked by itself."""

    @property
    def champion(self) -> dict[str, Any]:
        """The version that the registry wants, as the service describes it."""
        return self.models["champion"]

    @property
    def answering(self) -> dict[str, Any]:
        """The version that has answered: the challenger, where it gets all requests."""
        role = self.answer.headers.get("X-Model-Role") if self.answer else None
        return self.models.get(role or "champion", self.champion)

    def pause(self, missing: str) -> bool:
        """Waits a moment for what is missing; returns whether there is time to ask once more."""
        if self._give_up - time.monotonic() <= PAUSE_SECONDS:
            return False
        if not self._is_waiting:
            self._is_waiting = True
            self._tell(f"waiting for up to {self.expected.timeout_seconds:g} s: {missing}")
        time.sleep(PAUSE_SECONDS)
        return True

    def get(self, path: str) -> Answer:
        """Asks for a page, no longer than is waited for.

        Raises:
            NoAnswer: it does not come.
        """
        return self.client.ask(path, seconds=min(REQUEST_SECONDS, max(1, self._give_up - time.monotonic())))

    def post(self, path: str, body: bytes, media_type: str = JSON, **headers: str) -> Answer:
        """Asks for predictions.

        Raises:
            NoAnswer: it does not come.
        """
        return self.client.ask(path, body, {"Content-Type": media_type, **self.routing, **headers})

    def predict(self, instances: list[Any], **headers: str) -> Answer:
        """Asks for the predictions of rows.

        Raises:
            NoAnswer: it does not come.
        """
        return self.post("/v1/predict", json.dumps({"instances": instances}).encode(), **headers)

    def wait(self, path: str, lacks: Callable[[Answer], str]) -> None:
        """Waits until a page lacks nothing over several connections in a row.

        Args:
            path: of the page.
            lacks: says what is missing; nothing where all is well.

        Raises:
            Broken: something is missing for too long.
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
