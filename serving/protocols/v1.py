"""The native protocol: `predict` and `predict_batch`, JSON, `.npy` and Arrow."""

from typing import Any

import numpy.typing as npt

from serving.codecs.arrow import array_to_arrow, arrow_to_inputs
from serving.codecs.json_answers import ENCODED_ROWS, ENCODER, array_to_json, encode_rows
from serving.codecs.media_types import ARROW, JSON, NPY, Body, media_name
from serving.codecs.npy import array_to_npy, npy_to_inputs
from serving.errors import UnsupportedMedia
from serving.model.prepared import Manifest
from serving.protocols.endpoint import Decoded, Endpoint, Request, class_names
from serving.runtime import Output, count_output
from serving.traffic.loaded import LoadedModel


def _decode_predict(model: LoadedModel, request: Request) -> Decoded:
    if request.content_type not in ("", JSON):
        raise UnsupportedMedia(f"predict expects {JSON}, got {media_name(request.content_type)}")
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
    encoded = ENCODER.encode(answer)
    if is_short:
        return encoded
    return encode_rows(encoded.removesuffix(b"]}"), output, lambda part: predictions(part, manifest), b"]}")


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
                f"predict_batch expects {JSON}, {NPY} or {ARROW}, got {media_name(request.content_type)}"
            )


def _encode_batch(output: Output, model: LoadedModel, request: Request) -> Body:
    return encode_batch(output, model.manifest, request.content_type or JSON)


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
            return ENCODER.encode(array_to_json(array))
        return encode_rows(b"[", output, lambda part: array_to_json(batch_array(part)), b"]")
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
