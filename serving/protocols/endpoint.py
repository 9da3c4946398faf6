"""Answers requests for predictions: what all protocols have in common.

A protocol is a file beside this one. Its endpoints decode bodies into rows, and encode answers and errors.
"""

import asyncio
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from serving.batching.batcher import Gone
from serving.codecs.limits import NUMBER_BYTES, OBJECT_BYTES, SMALL_BYTES, check_weight
from serving.codecs.media_types import ARROW, JSON, PARQUET, Body
from serving.errors import ServingError, TimedOut
from serving.model.prepared import Manifest
from serving.model.schema import Inputs
from serving.monitoring.finished import Finished
from serving.monitoring.tracing.timeline import Timeline
from serving.process.in_flight import Claim
from serving.runtime import Output
from serving.traffic.loaded import LoadedModel
from serving.traffic.router import Router
from serving.traffic.routing import NO_CHOICE, Choice, Route

LARGE_BODY_BYTES = 64_000
"""From this size on, bodies are decoded or encoded in a thread, so that other requests need not wait."""

GIVEN_BACK_BYTES = 1_000_000
"""After a body of this size, freed memory is returned to the system once the worker is idle."""

SMALL_CELLS = SMALL_BYTES // NUMBER_BYTES
"""Up to this many numbers are not claimed."""

ENCODED_ROW_BYTES = 60
"""Approximate size of a row's prediction in JSON, with one number or two probabilities."""

NUMBER_TEXT_BYTES = 25
"""Size of each further number."""

_IMPORTED = {ARROW: "pyarrow.compute", PARQUET: "pyarrow.parquet"}
"""What the first body of a media type imports."""

Headers = list[tuple[bytes, bytes]]

Decoded = tuple[Inputs, dict[str, Any]]
"""The rows, and the parameters of the request."""

T = TypeVar("T")


class Request(NamedTuple):
    """A request for predictions, independent of the protocol."""

    body: Body
    content_type: str
    id: str
    gone: Gone
    claim: Claim
    """Its memory."""
    choice: Choice = NO_CHOICE
    timeout_seconds: float | None = None
    """Its timeout, if shorter than the service's."""
    timeline: Timeline | None = None
    """Its times, for its log line and spans; those of a shadow's copy are not noted."""


class Answer(NamedTuple):
    """The answer to a request."""

    body: Body
    media_type: str
    output: Output
    route: Route


class Endpoint(NamedTuple):
    """How an endpoint decodes rows, and encodes answers and errors."""

    decode: Callable[[LoadedModel, Request], Decoded]
    encode: Callable[[Output, LoadedModel, Request], Body]
    encode_error: Callable[[ServingError, str], tuple[int, bytes]] | None = None
    """Returns status and body (JSON) for an error and the request's id; None: those of the native protocol."""
    media_type: str | None = None
    """Of its answers; None: that of the request."""
    headers: Callable[[Manifest], Headers] | None = None
    """More headers of its answers."""


async def answer(endpoint: Endpoint, router: Router, request: Request) -> Answer:
    """Answers a request for predictions.

    Raises:
        ServingError: with the status to answer with, and the model.
        ClientGone: the client disconnected.
    """
    timeline = request.timeline or Timeline()
    started = timeline.decoding = time.perf_counter()
    with router.choose(request.choice) as route:
        model = route.model
        timeout = model.batcher.policy.timeout_seconds
        if request.timeout_seconds is not None:
            timeout = min(timeout, request.timeout_seconds)
        deadline = started + timeout
        inputs, params = await _off_loop(
            request, _decoding_bytes(request), deadline, endpoint.decode, model, request
        )
        timeline.queued, timeline.n_rows = time.perf_counter(), inputs.n_rows
        if (
            inputs.n_rows * len(inputs.columns) > SMALL_CELLS
            or len(request.body) > SMALL_BYTES
            or inputs.object_bytes > SMALL_BYTES
        ):
            request.claim.add(held_bytes(inputs))
        output = await model.predict(
            inputs, params, request.gone, deadline=deadline, request_id=request.id, timeline=timeline
        )
        timeline.answered = time.perf_counter()
        # Most requests have one row, whose answer is never long.
        size = (
            _answer_bytes(output, model.manifest, inputs.n_rows) if inputs.n_rows > 1 else ENCODED_ROW_BYTES
        )
        if size > SMALL_BYTES:
            check_weight(size, "the answer")
            request.claim.add(size)
        encoded = await _off_loop(request, size, deadline, endpoint.encode, output, model, request)
        if len(request.body) > GIVEN_BACK_BYTES:
            router.had_large_request = True
        timeline.encoded = time.perf_counter()
        observe(route, request, inputs, params, output, started=started)
        return Answer(encoded, endpoint.media_type or request.content_type or JSON, output, route)


def _answer_bytes(output: Output, manifest: Manifest, n_rows: int) -> int:
    """Returns the approximate size of an answer in JSON; close enough for other formats and objects."""
    name_bytes = 0
    if output.probabilities is not None:
        n_more: int = output.probabilities.shape[1] - 2
        name_bytes = sum(map(len, class_names(manifest.classes or [])))
    else:
        answers = output.values if output.values is not None else output.labels
        assert answers is not None
        n_more = math.prod(answers.shape[1:]) - 1
    return n_rows * (ENCODED_ROW_BYTES + NUMBER_TEXT_BYTES * n_more + name_bytes)


def held_bytes(inputs: Inputs) -> int:
    """Returns the approximate memory of rows."""
    n_objects = sum(column.size for column in inputs.columns if column.dtype == object)
    return sum(column.nbytes for column in inputs.columns) + max(
        inputs.object_bytes, n_objects * OBJECT_BYTES
    )


async def ask(endpoint: Endpoint, route: Route, request: Request) -> Output:
    """Returns the answer of a shadow, for which nobody waits.

    Raises:
        ServingError: it cannot answer.
    """
    started = time.perf_counter()
    with route:
        deadline = started + route.model.batcher.policy.timeout_seconds
        inputs, params = await _off_loop(
            request, _decoding_bytes(request), deadline, endpoint.decode, route.model, request
        )
        output = await route.model.predict(inputs, params, never, deadline=deadline, request_id=request.id)
        observe(route, request, inputs, params, output, started=started)
        return output


def observe(
    route: Route, request: Request, inputs: Inputs, params: dict[str, Any], output: Output, *, started: float
) -> None:
    """Tells the route's observers of an answered request."""
    if not route.observers:
        return
    finished = Finished(
        request.id,
        request.choice.key,
        route.model.manifest,
        route.role,
        inputs,
        params,
        output,
        len(request.body),
        started,
        time.perf_counter(),
    )
    for observer in route.observers:
        observer(finished)


async def never() -> None:
    """Waits forever: a client that cannot disconnect."""
    await asyncio.Event().wait()


def _decoding_bytes(request: Request) -> int:
    """The body's length; for the first one that pyarrow reads at least that of a large one: its import takes 0.5 s."""
    module = _IMPORTED.get(request.content_type)
    if module is not None and module not in sys.modules:
        return max(LARGE_BODY_BYTES, len(request.body))
    return len(request.body)


async def _off_loop(
    request: Request, n_bytes: int, deadline: float, function: Callable[..., T], *args: Any
) -> T:
    """Calls a function whose time grows with the number of bytes; in a thread if there are many.

    Raises:
        TimedOut: the thread is not done at the deadline; it goes on.
    """
    if n_bytes < LARGE_BODY_BYTES:
        return function(*args)
    try:
        async with asyncio.timeout(deadline - time.perf_counter()):
            return await request.claim.run_in_turn(n_bytes, function, *args)
    except TimeoutError:
        raise TimedOut from None


def class_names(classes: list[Any]) -> list[str]:
    """Returns the classes as JSON keys: text as it is, everything else as JSON writes it."""
    return [label if isinstance(label, str) else msgspec.json.encode(label).decode() for label in classes]
