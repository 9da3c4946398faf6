"""A worker's application with a prepared model, asked without a socket and without BentoML."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import httpx

from serving.http.gateway import Gateway
from serving.model.libraries import library_versions
from serving.model.prepared import find_prepared
from serving.model.state import State, write_state
from serving.monitoring.tracing.request_log import RequestLog
from serving.monitoring.tracing.requests import Requests
from serving.prepare.registry.lookup import look_up
from serving.prepare.registry.resolution import Resolved
from serving.settings import Settings, load_settings
from serving.traffic.router import Router
from tests.support.environment import wait_until
from tests.support.prepared import take_prepared

T = TypeVar("T")


class _Lifespan:
    """A worker's, as `service.py` has it, as far as it is about the model."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def start(self) -> None:
        self._router.start()
        await self._router.wait_loaded(30)

    async def stop(self) -> None:
        await self._router.stop()


class Application:
    """The gateway, behind a client of real HTTP semantics; threads may ask it at the same time."""

    def __init__(self, router: Router, settings: Settings) -> None:
        self.requests = Requests(RequestLog(settings.slow_request_seconds, settings.log_requests_percent))
        self.gateway = Gateway(
            router, _no_bentoml, _Lifespan(router), settings.max_body_bytes, requests=self.requests
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._ending = asyncio.Event()
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.gateway), base_url="http://worker", trust_env=False
        )

    @contextlib.contextmanager
    def running(self) -> Iterator["Application"]:
        """Is alive from the beginning to the end of a `with` statement."""
        self._thread.start()
        said: asyncio.Queue[str] = asyncio.Queue()
        living = asyncio.run_coroutine_threadsafe(self._live(said), self._loop)
        try:
            assert self._call(said.get()) == "lifespan.startup.complete"
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._ending.set)
            living.result(30)
            self._call(self._client.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _live(self, said: "asyncio.Queue[str]") -> None:
        is_started = False

        async def receive() -> dict[str, Any]:
            nonlocal is_started
            if is_started:
                await self._ending.wait()
                return {"type": "lifespan.shutdown"}
            is_started = True
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            said.put_nowait(message["type"])

        await self.gateway({"type": "lifespan"}, receive, send)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer to a request."""
        return self._call(self._client.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        """The answer to a GET."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """The answer to a POST."""
        return self.request("POST", path, **more)

    def predict(self, instances: Any, **more: Any) -> dict[str, Any]:
        """The answer to `POST /v1/predict`."""
        response = self.post("/v1/predict", json={"instances": instances, **more})
        assert response.status_code == 200, response.text
        return dict(response.json())


def _no_bentoml() -> Any:
    raise AssertionError("BentoML's application is not needed here")


def _tag_of(version: Resolved) -> str:
    found = find_prepared(version.name, version.version, version.source_key, library_versions())
    assert found is not None, f"{version.name} version {version.version} is not among what is prepared"
    return found.tag


@contextlib.contextmanager
def running_application(folder: Path, registry: str, name: str, **environment: str) -> Iterator[Application]:
    """A worker that serves what the registry names, which is prepared: of `tests/support/models.py`, or of a `Registry`.

    Args:
        folder: for its model store and what its processes would share.
        registry: its URI.
        name: of the registered model.
        environment: more of its settings.
    """
    run_directory = folder / "run"
    run_directory.mkdir(parents=True)
    home = folder / "bentoml"
    take_prepared(home, registry)
    variables = {"MLFLOW_TRACKING_URI": registry, "SERVING_MODEL_NAME": name, "BENTOML_HOME": str(home)}
    with mock.patch.dict(os.environ, variables | environment):
        settings = load_settings()
        wanted = look_up(settings)
        assert wanted is not None
        state = State(
            champion=_tag_of(wanted.champion),
            challenger=_tag_of(wanted.challenger) if wanted.challenger else None,
            challenger_percent=wanted.challenger_percent,
        )
        write_state(run_directory, state)
        router = Router(run_directory, settings)
        application = Application(router, settings)
        with application.running():
            # The champion answers while the challenger is still being loaded.
            tags = {tag for tag in (state.champion, state.challenger) if tag}
            wait_until(lambda: {route.model.tag for route in router.routes.all} == tags, 30, "all are loaded")
            yield application
