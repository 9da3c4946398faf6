"""The native protocol: `predict` and `predict_batch`, JSON, `.npy` and Arrow."""

import asyncio
import math
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from serving.batching.batcher import Gone
from serving.codecs.arrow import array_to_arrow, arrow_to_inputs
from serving.codecs.json_answers import array_to_json
from serving.codecs.limits import NUMBER_BYTES, OBJECT_BYTES, SMALL_BYTES, check_weight
from serving.codecs.media_types import ARROW, JSON, NPY, Body
from serving.codecs.npy import array_to_npy, npy_to_inputs
from serving.errors import TimedOut, UnsupportedMedia
from serving.model.prepared import Manifest
from serving.model.schema import Inputs
from serving.monitoring.finished import Finished
from serving.monitoring.tracing.timeline import Timeline
from serving.process.in_flight import Claim
from serving.runtime import Output, count_output, slice_output
from serving.traffic.loaded import LoadedModel
from serving.traffic.router import Router
from serving.traffic.routing import NO_CHOICE, Choice, Route

LARGE_BODY_BYTES = 64_000
"""From this size on, bodies are decoded or encoded in a thread, so that other requests need not wait."""

GIVEN_BACK_BYTES = 1_000_000
"""After a body of this size, freed memory is returned to the system once the worker is idle."""

SMALL_CELLS = SMALL_BYTES // NUMBER_BYTES
"""Up to this many numbers are not claimed."""

ENCODED_ROWS = 4096
"""Rows of a JSON answer that are Python objects at a time."""

ENCODED_ROW_BYTES = 60
"""Approximate size of a row's prediction in JSON, with one number or two probabilities."""

NUMBER_TEXT_BYTES = 25
"""Size of each further number."""

Decoded = tuple[Inputs, dict[str, Any]]
"""The rows, and the parameters of the request."""

T = TypeVar("T")


def encode_hook(value: Any) -> Any:
    """Converts a model's own objects to JSON types."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


_encoder = msgspec.json.Encoder(enc_hook=encode_hook)


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
    """How an endpoint decodes rows and encodes answers."""

    decode: Callable[[LoadedModel, Request], Decoded]
    encode: Callable[[Output, LoadedModel, Request], Body]


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
        return Answer(encoded, request.content_type or JSON, output, route)


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


def _decode_predict(model: LoadedModel, request: Request) -> Decoded:
    if request.content_type not in ("", JSON):
        raise UnsupportedMedia(f"predict expects {JSON}, got {_media_name(request.content_type)}")
    return model.decoder.predict(request.body)


def _encode_predict(output: Output, model: LoadedModel, request: Request) -> Body:
    return encode_predictions(output, model.manifest, request.id)


def encode_predictions(output: Output, manifest: Manifest, request_id: str) -> Body:
    """Returns the answer of `predict`."""
    is_short = count_output(output) <= ENCODED_ROWS
    answer = {
        "model": {"name": manifest.name, "version": manifest.version},
        "request_id": request_id,
        "predictions": predictions(output, manifest) if is_short else [],
    }
    encoded = _encoder.encode(answer)
    if is_short:
        return encoded
    return _encode_rows(encoded.removesuffix(b"]}"), output, lambda part: predictions(part, manifest), b"]}")


def _encode_rows(start: bytes, output: Output, rows: Callable[[Output], list[Any]], end: bytes) -> Body:
    """Returns a JSON answer with many rows, encoded some at a time."""
    whole = bytearray(start)
    for first in range(0, count_output(output), ENCODED_ROWS):
        part = slice_output(output, first, first + ENCODED_ROWS)
        whole += b"," if first else b""
        whole += memoryview(_encoder.encode(rows(part)))[1:-1]
    whole += end
    return whole


def _decoding_bytes(request: Request) -> int:
    """The body's length; for the first Arrow body at least that of a large one, as importing pyarrow takes 0.5 s."""
    if request.content_type == ARROW and "pyarrow.compute" not in sys.modules:
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


def _decode_batch(model: LoadedModel, request: Request) -> Decoded:
    body = request.body
    match request.content_type or JSON:
        case "application/json":
            return model.decoder.batch(body), {}
        case "application/x-npy":
            return npy_to_inputs(body, model.schema, model.max_rows), {}
        case "application/vnd.apache.arrow.stream":
            return arrow_to_inputs(body, model.schema, model.max_rows), {}
        case _:
            raise UnsupportedMedia(
                f"predict_batch expects {JSON}, {NPY} or {ARROW}, got {_media_name(request.content_type)}"
            )


def _encode_batch(output: Output, model: LoadedModel, request: Request) -> Body:
    return encode_batch(output, model.manifest, request.content_type or JSON)


def _media_name(content_type: str) -> str:
    return content_type if len(content_type) <= 60 and content_type.isascii() else "another one"


def predictions(output: Output, manifest: Manifest) -> list[dict[str, Any]]:
    """Returns one entry per row: `label` (and `probabilities` by class), or `value`."""
    if output.labels is None:
        assert output.values is not None
        return [{"value": value} for value in array_to_json(output.values)]
    labels = array_to_json(output.labels)
    if output.probabilities is None or manifest.classes is None:
        return [{"label": label} for label in labels]
    names = class_names(manifest.classes)
    return [
        {"label": label, "probabilities": dict(zip(names, row, strict=True))}
        for label, row in zip(labels, output.probabilities.tolist(), strict=True)
    ]


def class_names(classes: list[Any]) -> list[str]:
    """Returns the classes as JSON keys: text as it is, everything else as JSON writes it."""
    return [label if isinstance(label, str) else msgspec.json.encode(label).decode() for label in classes]


def batch_array(output: Output) -> npt.NDArray[Any]:
    """Returns the array for `predict_batch`: probabilities, else labels, else values."""
    for array in (output.probabilities, output.labels, output.values):
        if array is not None:
            return array
    raise ValueError("the output is empty")


def encode_batch(output: Output, manifest: Manifest, content_type: str) -> Body:
    """Encodes the array in the media type of the request.

    Raises:
        UnsupportedMedia: the model's outputs are objects, which only JSON can carry.
    """
    array = batch_array(output)
    if content_type == JSON:
        if count_output(output) <= ENCODED_ROWS:
            return _encoder.encode(array_to_json(array))
        return _encode_rows(b"[", output, lambda part: array_to_json(batch_array(part)), b"]")
    is_text = array.dtype == object and all(isinstance(value, str) for value in array.flat)
    if array.dtype == object and not is_text:
        raise UnsupportedMedia(f"this model's outputs are not an array of numbers or text; send {JSON}")
    if content_type == NPY:
        return array_to_npy(array)
    if output.probabilities is not None and manifest.classes is not None:
        names = class_names(manifest.classes)
    elif array.ndim == 1:
        names = ["label" if output.labels is not None else "value"]
    else:
        array = array.reshape(len(array), -1)
        names = [str(position) for position in range(array.shape[1])]
    return array_to_arrow(array, names)


PREDICT = Endpoint(_decode_predict, _encode_predict)
"""`POST /v1/predict`."""

PREDICT_BATCH = Endpoint(_decode_batch, _encode_batch)
"""`POST /v1/predict_batch`, which answers in the media type of the request."""
