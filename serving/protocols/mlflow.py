"""MLflow's scoring protocol, as `mlflow models serve` speaks it: `POST /invocations` in JSON, CSV and Parquet.

Source: mlflow/pyfunc/scoring_server/__init__.py. What differs on purpose is in docs/protocols.md.
"""

import re
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from serving.codecs.json_answers import ENCODED_ROWS, ENCODER, array_to_json, encode_rows
from serving.codecs.media_types import CSV, JSON, PARQUET, Body, media_name
from serving.errors import (
    Forbidden,
    InvalidInput,
    MalformedBody,
    PayloadTooLarge,
    RouteNotFound,
    ServingError,
    TimedOut,
    Unauthorized,
    UnsupportedMedia,
    VersionNotFound,
)
from serving.model.prepared import Manifest, PyfuncAnswer
from serving.protocols.endpoint import Decoded, Endpoint, Headers, Request
from serving.runtime import Container, Output, count_output
from serving.traffic.loaded import LoadedModel

ERROR_CODES: dict[type[ServingError], str] = {
    MalformedBody: "BAD_REQUEST",
    InvalidInput: "INVALID_PARAMETER_VALUE",
    Unauthorized: "UNAUTHENTICATED",
    Forbidden: "PERMISSION_DENIED",
    RouteNotFound: "ENDPOINT_NOT_FOUND",
    VersionNotFound: "RESOURCE_DOES_NOT_EXIST",
    PayloadTooLarge: "REQUEST_LIMIT_EXCEEDED",
    TimedOut: "DEADLINE_EXCEEDED",
}
"""MLflow's codes; of other errors by their status. Source: mlflow/protos/databricks.proto, `ErrorCode`."""

NAMED_PATH = "/serving-endpoints/{name}/invocations"
"""Source: Databricks' REST API, "Query a serving endpoint"."""

_NAMED = re.compile(r"/serving-endpoints/([^/]+)/invocations")


def named_model(path: str) -> str | None:
    """Returns the model's name in a path of Databricks' model serving; None if it is another path."""
    found = _NAMED.fullmatch(path)
    return found and found[1]


def _decode(model: LoadedModel, request: Request) -> Decoded:
    # Imported on the first request: many services never get one.
    match request.content_type or JSON:
        case "application/json":
            from serving.codecs.mlflow_json import mlflow_json_to_inputs

            return mlflow_json_to_inputs(request.body, model.schema, model.max_rows)
        case "text/csv":
            from serving.codecs.csv import csv_to_inputs

            return csv_to_inputs(request.body, model.schema, model.max_rows), {}
        case "application/vnd.apache.parquet":
            from serving.codecs.parquet import parquet_to_inputs

            return parquet_to_inputs(request.body, model.schema, model.max_rows), {}
        case _:
            raise UnsupportedMedia(
                f"invocations expects {JSON}, {CSV} or {PARQUET}, got {media_name(request.content_type)}"
            )


def _encode(output: Output, model: LoadedModel, request: Request) -> Body:  # noqa: ARG001  # as every protocol
    return encode_invocation(output, model.manifest)


def encode_invocation(output: Output, manifest: Manifest) -> Body:
    """Returns what `mlflow.pyfunc` would, as MLflow writes it, but with null for NaN."""
    if output.container is None and count_output(output) > ENCODED_ROWS:
        return encode_rows(b'{"predictions":[', output, lambda part: _predictions(part, manifest), b"]}")
    return ENCODER.encode({"predictions": _predictions(output, manifest)})


def _predictions(output: Output, manifest: Manifest) -> Any:
    if output.labels is None:
        assert output.values is not None
        return _contained(array_to_json(output.values), output)
    if output.probabilities is None or manifest.pyfunc is PyfuncAnswer.LABELS:
        return array_to_json(output.labels)
    is_one = manifest.pyfunc is PyfuncAnswer.RAW and output.probabilities.shape[1] == 2
    return array_to_json(np.asarray(output.probabilities[:, 1] if is_one else output.probabilities))


def _contained(values: list[Any], output: Output) -> Any:
    match output.container:
        case Container.COLUMN:
            return [{output.name: value} for value in values]
        case Container.COLUMNS:
            return {name: [row[name] for row in values] for name in values[0]} if values else {}
        case Container.SINGLE:
            return values[0]
        case _:
            return values


def _encode_error(error: ServingError, request_id: str) -> tuple[int, bytes]:
    """MLflow knows no 422: what does not fit the signature is 400."""
    status = 400 if error.status == 422 else error.status
    body: dict[str, Any] = {"error_code": error_code(error), "message": str(error), "request_id": request_id}
    if error.details:
        body["details"] = error.details
    return status, msgspec.json.encode(body)


def error_code(error: ServingError) -> str:
    """Returns MLflow's code of an error."""
    code = ERROR_CODES.get(type(error))
    if code is not None:
        return code
    if error.status == 503:
        return "TEMPORARILY_UNAVAILABLE"
    return "INTERNAL_ERROR" if error.status >= 500 else "BAD_REQUEST"


def _headers(manifest: Manifest) -> Headers:
    """The header that Databricks' clients read."""
    return [(b"served-model-name", f"{quote(manifest.name, safe=' ')}-{manifest.version}".encode())]


INVOCATIONS = Endpoint(_decode, _encode, _encode_error, JSON, _headers)
"""`POST /invocations`, and with the model's name `POST /serving-endpoints/{name}/invocations`."""
