"""The outermost ASGI application: our endpoints, without a framework in between.

BentoML's application behind it serves the rest: the Swagger assets and the schema for its Python client. It is
created on the first such request: its imports take 19 MB and a tenth of a worker's startup, and most workers
never need it.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from serving.codecs import limits
from serving.codecs.limits import SMALL_BYTES
from serving.codecs.media_types import Body
from serving.errors import (
    ClientGone,
    Forbidden,
    InternalError,
    MalformedHeader,
    MethodNotAllowed,
    PayloadTooLarge,
    RouteNotFound,
    ServingError,
    TimedOut,
)
from serving.http.answers import encode_error, is_request_id, new_request_id
from serving.http.dashboard import dashboard_page
from serving.http.drift import describe_drift
from serving.http.greeting import examples
from serving.http.models import describe_models
from serving.http.swagger import SWAGGER_PAGE
from serving.http.webhook import check_delivery
from serving.monitoring import metrics
from serving.monitoring.tracing.request_log import RequestLog
from serving.monitoring.tracing.requests import Requests
from serving.monitoring.tracing.timeline import Timeline
from serving.process.garbage_collector import forget_frames
from serving.process.in_flight import Claim, InFlight
from serving.process.logs import BY_CALLERS, Sparing, origin
from serving.protocols import mlflow, v1
from serving.protocols.endpoint import Endpoint, Request, answer, ask
from serving.protocols.openapi import openapi_document
from serving.traffic.router import Router
from serving.traffic.routing import NO_CHOICE, Choice
from serving.traffic.shadow import Shadow

if TYPE_CHECKING:
    from serving.http.feedback import Feedback

log = logging.getLogger("serving.gateway")

_sparing = Sparing()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Lifespan(Protocol):
    """A worker's startup and shutdown."""

    async def start(self) -> None:
        """Called before the first request."""

    async def stop(self) -> None:
        """Called after the last one."""


BENTOML_ASSETS, BENTOML_SCHEMA = "/static_content/", "/schema.json"

DRIFT_SHARE = 0.1
"""Share of a worker's time for `/v1/drift`; until then its last answer is given again."""

SENT_BYTES = 2**20
"""Bytes of an answer written at a time."""

_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?", re.ASCII)


class Gateway:
    """Routes requests, reads bodies within the limit, and turns errors into responses."""

    def __init__(
        self,
        router: Router,
        make_bentoml_app: Callable[[], App],
        life: Lifespan,
        max_body_bytes: int,
        webhook_secret: str | None = None,
        *,
        requests: Requests | None = None,
        feedback: "Feedback | None" = None,
    ) -> None:
        self._router = router
        self._feedback = feedback
        self._requests = requests or Requests(RequestLog())
        self._make_bentoml_app = make_bentoml_app
        self._bentoml_app: asyncio.Task[App] | None = None
        self._life = life
        self._max_body_bytes = max_body_bytes
        self._webhook_secret = webhook_secret
        self._in_flight = InFlight(limits.request_bytes)
        self._predictions = {
            f"{prefix}{path}": endpoint
            for prefix in ("/v1", "")
            for path, endpoint in (("/predict", v1.PREDICT), ("/predict_batch", v1.PREDICT_BATCH))
        }
        self._predictions["/invocations"] = mlflow.INVOCATIONS
        self._shadow = Shadow()
        self._drift_until, self._drift_answer = 0.0, b""
        self._document: tuple[str | None, bytes] | None = None
        """The tag of a model, and its OpenAPI document."""
        self._pages: dict[str, Callable[[], tuple[int, bytes, bytes]]] = {
            "/": lambda: (200, b"text/html; charset=utf-8", SWAGGER_PAGE),
            "/dashboard": lambda: (200, b"text/html; charset=utf-8", dashboard_page()),
            "/docs.json": self._openapi,
            "/livez": lambda: (200, b"application/json", b'{"status":"alive"}'),
            "/readyz": self._readyz,
            "/healthz": self._readyz,
            "/v1/models": self._models,
            "/v1/drift": self._drift,
            "/v1/quality": self._quality,
            "/metrics": self._metrics,
            "/ping": self._ping,
            "/health": self._ping,
            "/version": self._version,
        }
        self._commands = {"/v1/sync": self._sync, "/v1/feedback": self._take_feedback}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path = scope["path"]
        endpoint = self._predictions.get(path)
        if endpoint is not None:
            await self._predict(endpoint, scope, receive, send)
        elif (name := mlflow.named_model(path)) is not None:
            # Logs and spans have no name that the caller made up.
            scope = {**scope, "path": mlflow.NAMED_PATH}
            await self._predict(mlflow.INVOCATIONS, scope, receive, send, name)
        elif path in self._commands:
            await self._command(path, scope, receive, send)
        elif path == BENTOML_SCHEMA or path.startswith(BENTOML_ASSETS):
            await self._ask_bentoml(scope, receive, send)
        else:
            await self._page(path, scope, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Implements ASGI's lifespan protocol."""
        await receive()
        try:
            await self._life.start()
        except Exception as error:  # it is logged
            log.exception("the worker failed to start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._life.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _get_bentoml_app(self) -> "asyncio.Task[App]":
        app = self._bentoml_app
        if app is None or (app.done() and app.exception() is not None):
            app = self._bentoml_app = asyncio.create_task(asyncio.to_thread(self._make_bentoml_app))
        return app

    async def _ask_bentoml(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards BentoML's response, but replaces its errors with our format."""
        request_id, *_ = _read_headers(scope["headers"])
        is_refused = False

        async def send_on(message: MutableMapping[str, Any]) -> None:
            nonlocal is_refused
            is_refused = is_refused or 400 <= message.get("status", 200) < 500
            if not is_refused:
                await send(message)

        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise MethodNotAllowed("GET, HEAD")
            await (await self._get_bentoml_app())(scope, receive, send_on)
            if is_refused:
                raise RouteNotFound("there is no such file")
        except ServingError as error:
            await _send_error(send, error, request_id)

    async def _predict(
        self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send, name: str | None = None
    ) -> None:
        request_id, content_type, length, choice, encoding, timeout, parent = _read_headers(scope["headers"])
        if name is not None:
            choice = choice._replace(name=name)
        timeline = self._requests.begin(request_id, parent, scope)
        metrics.active.enter()
        claim = Claim(self._in_flight)
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("POST")
            timeout_seconds = None if timeout is None else _read_seconds(timeout)
            body = await self._read_body(receive, length, claim)
            if encoding:
                body = await self._decompress(body, encoding, claim, timeout_seconds)
            timeline.body_bytes = len(body)
            request = Request(
                body, content_type, request_id, receive, claim, choice, timeout_seconds, timeline
            )
            answered = await answer(endpoint, self._router, request)
        except ClientGone:
            return
        except ServingError as error:
            forget_frames(error)  # before the client reads the answer
            await self._fail(endpoint, error, timeline, send)
        except Exception as error:  # noqa: BLE001  # it is logged
            mistake = _mistake(error, request_id)
            forget_frames(error)
            await self._fail(endpoint, mistake, timeline, send)
        else:
            timeline.status, timeline.model = 200, answered.route.labels
            headers = [*timeline.headers, *answered.route.headers]
            if endpoint.headers is not None:
                headers += endpoint.headers(answered.route.model.manifest)
            if self._router.sends_away:
                headers.append((b"connection", b"close"))  # the next request goes to another worker
            await _send(send, 200, answered.media_type.encode(), answered.body, headers)
            shadow = self._router.shadow_of(answered.route)
            if shadow is not None:
                copy = partial(ask, endpoint, shadow, request)
                self._shadow.compare(shadow, answered.output, copy, claim.n_bytes or len(body))
        finally:
            claim.release()
            metrics.active.leave()
            self._requests.end(timeline)

    async def _fail(self, endpoint: Endpoint, error: ServingError, timeline: Timeline, send: Send) -> None:
        if endpoint.encode_error is None:
            status, body = error.status, encode_error(error, timeline.request_id)
        else:
            status, body = endpoint.encode_error(error, timeline.request_id)
        timeline.fail(error, status)
        if self._router.counts_requests:
            metrics.count_error(error.model or self._router.champion_labels, error, status)
        await _send(send, status, b"application/json", body, [*error.headers, *timeline.headers])

    async def _read_body(self, receive: Receive, length: int | None, claim: Claim) -> Body:
        limit = self._max_body_bytes
        if length is not None and length > SMALL_BYTES:
            if length > limit:
                raise _too_large(limit)
            claim.check(length)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > limit:
                raise _too_large(limit)
            if len(body) > SMALL_BYTES:
                claim.add(len(body))
            return body
        # One growing buffer: joining a list of parts takes the memory twice, and one-byte parts take forty
        # times their size.
        whole = bytearray(body)
        while message.get("more_body", False):
            if len(whole) > limit:
                raise _too_large(limit)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            whole += message.get("body", b"")
            if len(whole) > SMALL_BYTES:
                claim.add(len(whole) - claim.n_bytes)
        if len(whole) > limit:
            raise _too_large(limit)
        return whole

    async def _decompress(self, body: Body, encoding: bytes, claim: Claim, seconds: float | None) -> Body:
        from serving.http.compression import decompress  # few callers compress

        limit = self._max_body_bytes
        at_once = min(limit, SMALL_BYTES)
        if len(body) <= SMALL_BYTES:
            try:
                return decompress(body, encoding, at_once)
            except PayloadTooLarge:
                if at_once == limit:
                    raise
        try:
            async with asyncio.timeout(seconds):
                # Claims the limit: the decompressed size is not known before.
                body = await claim.run_in_turn(limit, decompress, body, encoding, limit)
        except TimeoutError:
            raise TimedOut from None
        claim.add(len(body))
        return body

    async def _page(self, path: str, scope: Scope, send: Send) -> None:
        request_id, *_ = _read_headers(scope["headers"])
        page = self._pages.get(path)
        try:
            if page is None:
                endpoints = ", ".join(sorted({*self._predictions, *self._pages, *self._commands}))
                raise RouteNotFound(f"no such endpoint; expected one of {endpoints}")
            if scope["method"] not in ("GET", "HEAD"):
                raise MethodNotAllowed("GET, HEAD")
            status, media_type, body = page()
        except ServingError as error:
            await _send_error(send, error, request_id)
        except Exception as error:  # noqa: BLE001  # it is logged
            await _send_error(send, _mistake(error, request_id), request_id)
        else:
            await _send(send, status, media_type, body, [(b"x-request-id", request_id.encode())])

    async def _command(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, _, length, *_ = _read_headers(scope["headers"])
        claim = Claim(self._in_flight)
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("POST")
            body = await self._read_body(receive, length, claim)
            status, answer = await self._commands[path](scope["headers"], body)
        except ClientGone:
            return
        except ServingError as error:
            forget_frames(error)
            await _send_error(send, error, request_id)
        else:
            await _send(send, status, b"application/json", answer, [(b"x-request-id", request_id.encode())])
        finally:
            claim.release()

    async def _sync(self, headers: list[tuple[bytes, bytes]], body: Body) -> tuple[int, bytes]:
        if self._router.is_sealed:
            raise Forbidden("there is no registry to sync with: the model is inside this service")
        check_delivery(headers, bytes(body), self._webhook_secret, time.time())
        self._router.synchronize()
        return 202, b'{"status":"polling the registry"}'

    async def _take_feedback(self, headers: list[tuple[bytes, bytes]], body: Body) -> tuple[int, bytes]:  # noqa: ARG002  # as the other
        return 200, await self._get_feedback().pass_on(body)

    def _quality(self) -> tuple[int, bytes, bytes]:
        return 200, b"application/json", self._get_feedback().quality()

    def _get_feedback(self) -> "Feedback":
        if self._feedback is None:
            raise RouteNotFound("feedback is off (SERVING_FEEDBACK_STORE)")
        return self._feedback

    def _readyz(self) -> tuple[int, bytes, bytes]:
        manifest = self._router.model.manifest
        return (
            200,
            b"application/json",
            msgspec.json.encode(
                {"status": "ready", "model": {"name": manifest.name, "version": manifest.version}}
            ),
        )

    def _ping(self) -> tuple[int, bytes, bytes]:
        # As MLflow's scoring server answers.
        return 404 if self._router.current is None else 200, b"application/json", b"\n"

    def _version(self) -> tuple[int, bytes, bytes]:
        return 200, b"application/json", self._router.model.manifest.mlflow_version.encode()

    def _openapi(self) -> tuple[int, bytes, bytes]:
        model = self._router.current
        tag = model.tag if model else None
        if self._document is None or self._document[0] != tag:
            shown = examples(model, is_published=self._router.publishes_examples) if model else None
            parts = (model.manifest, model.schema, shown) if model else (None, None, None)
            self._document = tag, msgspec.json.encode(openapi_document(*parts))
        return 200, b"application/json", self._document[1]

    def _metrics(self) -> tuple[int, bytes, bytes]:
        self._router.flush_metrics()
        metrics.registry_asked.set(self._router.registry_asked_at or 0)
        text = metrics.exposition() + self._drift_metrics()
        if self._feedback is not None:
            text += self._feedback.metrics()
        return 200, b"text/plain; version=0.0.4; charset=utf-8", text

    def _drift_metrics(self) -> bytes:
        monitors = [route.model.drift for route in self._router.routes.all if route.model.drift]
        if not monitors:
            return b""
        from serving.monitoring.drift.exposition import exposition  # only if it is switched on

        return exposition(monitors)

    def _drift(self) -> tuple[int, bytes, bytes]:
        # Of several open pages, each asks every two seconds; with 1,000 inputs an answer takes a third of a second.
        started = time.monotonic()
        if started >= self._drift_until:
            self._drift_answer = msgspec.json.encode(describe_drift(self._router))
            took = time.monotonic() - started
            self._drift_until = started + took / DRIFT_SHARE
        return 200, b"application/json", self._drift_answer

    def _models(self) -> tuple[int, bytes, bytes]:
        return 200, b"application/json", msgspec.json.encode(describe_models(self._router))


def _mistake(error: Exception, request_id: str) -> InternalError:
    ending = _sparing.admit(*origin(error))
    if ending is not None:
        log.error("request %s failed%s", request_id, ending, exc_info=error, extra=BY_CALLERS)
    return InternalError("internal error; the traceback is in the service's log")


def _too_large(limit: int) -> PayloadTooLarge:
    error = PayloadTooLarge(f"the body is larger than the limit of {limit} bytes (SERVING_MAX_BODY_MB)")
    # The unread rest of the body would be taken for the next request.
    error.headers = [(b"connection", b"close")]
    return error


def _read_seconds(value: bytes) -> float:
    seconds = float(value) if _SECONDS.fullmatch(value) else 0
    if not seconds:
        raise MalformedHeader("X-Request-Timeout: expected seconds, a decimal number above 0, as in 2.5")
    return seconds


def _read_headers(
    headers: list[tuple[bytes, bytes]],
) -> tuple[str, str, int | None, Choice, bytes, bytes | None, bytes | None]:
    """Returns request id (the caller's, or a new one), media type, body length, choice of model, encoding, timeout, trace."""
    request_id, content_type, length, choice, encoding, timeout = "", "", None, NO_CHOICE, b"", None
    parent = None
    for name, value in headers:
        if name == b"content-type":
            content_type = value.partition(b";")[0].strip().lower().decode("latin-1")
        elif name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"x-request-id" and is_request_id(value):
            request_id = value.decode()
        elif name == b"x-routing-key":
            choice = choice._replace(key=value)
        elif name == b"x-model-version":
            choice = choice._replace(version=value.decode("latin-1"))
        elif name == b"x-request-timeout":
            timeout = value
        elif name == b"content-encoding":
            encoding = b", ".join(filter(None, (encoding, value)))
        elif name == b"traceparent":
            parent = value if parent is None else b""  # two are invalid
    return request_id or new_request_id(), content_type, length, choice, encoding, timeout, parent


async def _send(
    send: Send, status: int, media_type: bytes, body: Body, headers: list[tuple[bytes, bytes]]
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", media_type),
                (b"content-length", str(len(body)).encode()),
                *headers,
            ],
        }
    )
    if len(body) <= SMALL_BYTES:
        await send({"type": "http.response.body", "body": body})
        return
    # A slow reader of a long answer holds its request and claim until it has all of it: each piece waits until the one
    # before it is on its way.
    for start in range(0, len(body), SENT_BYTES):
        await send(
            {"type": "http.response.body", "body": bytes(body[start : start + SENT_BYTES]), "more_body": True}
        )
    await send({"type": "http.response.body", "body": b""})


async def _send_error(
    send: Send,
    error: ServingError,
    request_id: str,
) -> None:
    headers = [*error.headers, (b"x-request-id", request_id.encode())]
    await _send(send, error.status, b"application/json", encode_error(error, request_id), headers)
