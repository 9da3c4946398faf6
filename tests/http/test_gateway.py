"""`serving.http.gateway`: the worker's life, and BentoML's application behind it."""

import asyncio
import tracemalloc
from typing import Any

import httpx
import pytest

from serving.http.gateway import BENTOML_SCHEMA, Gateway
from serving.process.in_flight import Claim, InFlight
from tests.http.messages import refused


class Lifespan:
    """Remembers what was called."""

    def __init__(self, mistake: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._mistake = mistake

    async def start(self) -> None:
        self.calls.append("start")
        if self._mistake:
            raise self._mistake

    async def stop(self) -> None:
        self.calls.append("stop")


class BentoMLApp:
    """An application that is slow to make, and remembers who asked it."""

    def __init__(self) -> None:
        self.n_made = 0
        self.paths: list[str] = []
        self.mistakes: list[Exception] = []

    def make(self) -> Any:
        self.n_made += 1
        if self.mistakes:
            raise self.mistakes.pop()
        return self.answer

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        if "missing" in scope["path"]:
            await send(
                {"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]}
            )
            await send({"type": "http.response.body", "body": b"Not Found"})


def gateway(life: Lifespan | None = None, app: BentoMLApp | None = None) -> Gateway:
    return Gateway(None, (app or BentoMLApp()).make, life or Lifespan(), 1)  # type: ignore[arg-type]


def live(life: Lifespan) -> list[dict[str, Any]]:
    """Starts and stops a worker; returns what it said to the server."""

    async def main() -> list[dict[str, Any]]:
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for type_ in ("lifespan.startup", "lifespan.shutdown"):
            messages.put_nowait({"type": type_})
        said: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            said.append(message)

        await gateway(life)({"type": "lifespan"}, messages.get, send)
        return said

    return asyncio.run(main())


def test_a_worker_starts_before_and_stops_after_the_requests():
    life = Lifespan()

    said = live(life)

    assert [message["type"] for message in said] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert life.calls == ["start", "stop"]


def test_a_worker_that_cannot_start_says_so_to_the_server():
    life = Lifespan(OSError("no such folder"))

    said = live(life)

    assert said == [{"type": "lifespan.startup.failed", "message": "no such folder"}]
    assert life.calls == ["start"]


def ask(gateway: Gateway, n_requests: int) -> Any:
    async def nothing(*_: Any) -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": BENTOML_SCHEMA, "headers": []}
    return asyncio.gather(*(gateway(scope, nothing, nothing) for _ in range(n_requests)))


def test_bentomls_application_is_made_once_and_when_it_is_first_asked():
    app = BentoMLApp()

    async def main() -> None:
        served = gateway(app=app)
        assert app.n_made == 0
        await ask(served, 3)
        await ask(served, 1)

    asyncio.run(main())

    assert app.n_made == 1
    assert app.paths == [BENTOML_SCHEMA] * 4


def test_an_application_that_could_not_be_made_is_made_for_the_next_request():
    app = BentoMLApp()
    app.mistakes.append(MemoryError("it was a bad moment"))

    async def main() -> None:
        served = gateway(app=app)
        with pytest.raises(MemoryError):
            await ask(served, 1)
        await ask(served, 1)

    asyncio.run(main())

    assert app.paths == [BENTOML_SCHEMA]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/static_content/missing", 404, "not_found"),
        ("POST", "/static_content/swagger-ui.css", 405, "method_not_allowed"),
        ("OPTIONS", BENTOML_SCHEMA, 405, "method_not_allowed"),
    ],
)
def test_errors_below_bentomls_paths_have_our_form(method: str, path: str, status: int, code: str) -> None:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(gateway())
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.request(method, path, headers={"x-request-id": "mine"})

    response = asyncio.run(main())
    refused(response, status, code)
    assert response.headers["x-request-id"] == "mine"


def test_a_body_in_parts_is_put_together_where_it_grows():
    """Parts that are joined in the end are in memory twice."""
    parts = [b"x" * 100_000] * 100
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"end"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def main() -> None:
        gateway = Gateway(None, BentoMLApp().make, Lifespan(), 10_000_003)  # type: ignore[arg-type]
        tracemalloc.start()
        try:
            body = await gateway._read_body(receive, None, Claim(InFlight(1)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert body == b"".join([*parts, b"end"])
        assert peak < 1.5 * len(body)

    asyncio.run(main())
