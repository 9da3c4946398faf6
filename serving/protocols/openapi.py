"""Generates the OpenAPI document from the loaded model's signature and logged example."""

from typing import Any

import msgspec
import numpy as np

from serving.codecs.media_types import ARROW, JSON, NPY
from serving.model.prepared import Manifest
from serving.model.schema import Column, Form, Kind, Schema, Type

_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def _bounds(dtype: str) -> dict[str, Any]:
    """Returns the smallest and largest number of a dtype; empty for float64, which covers all of JSON's."""
    if dtype == "float64":
        return {}
    info: Any = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    return {"minimum": np.array(info.min).item(), "maximum": np.array(info.max).item()}


_JSON_TYPES: dict[Kind, dict[str, Any]] = {
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.INTEGER: {"type": "integer", "format": "int32", **_bounds("int32")},
    Kind.LONG: {"type": "integer", "format": "int64", **_bounds("int64")},
    Kind.FLOAT: {"type": "number", "format": "float", **_bounds("float32")},
    Kind.DOUBLE: {"type": "number", "format": "double"},
    Kind.STRING: {"type": "string"},
    Kind.BINARY: {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    Kind.DATETIME: {
        "type": "string",
        "format": "date-time",
        "description": "ISO 8601, years 1678 to 2261. Without a zone it is UTC.",
    },
    Kind.ANY: {},
}

_EXAMPLE_VALUES: dict[Kind, Any] = {
    Kind.BOOLEAN: True,
    Kind.INTEGER: 0,
    Kind.LONG: 0,
    Kind.FLOAT: 0.0,
    Kind.DOUBLE: 0.0,
    Kind.STRING: "text",
    Kind.BINARY: "",
    Kind.DATETIME: "2024-01-01T00:00:00",
    Kind.ANY: None,
}


def column_to_json_schema(column: Column) -> dict[str, Any]:
    """Returns the JSON schema of one column's cells."""
    schema = type_to_json_schema(column.type)
    if column.may_be_missing and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema


def type_to_json_schema(type_: Type) -> dict[str, Any]:
    """Returns the JSON schema of a type of the signature."""
    match type_.kind:
        case Kind.ARRAY:
            assert type_.items is not None
            return {"type": "array", "items": type_to_json_schema(type_.items)}
        case Kind.MAP:
            assert type_.items is not None
            return {"type": "object", "additionalProperties": type_to_json_schema(type_.items)}
        case Kind.OBJECT:
            return {
                "type": "object",
                "properties": {p.name: column_to_json_schema(p) for p in type_.properties},
                "required": [p.name for p in type_.properties if p.required],
                "additionalProperties": False,
            }
        case Kind.TENSOR:
            kind = "U" if type_.dtype == "str" else np.dtype(type_.dtype).kind
            json_type = {"U": "string", "b": "boolean", "f": "number"}.get(kind, "integer")
            # A tensor's float may be null, which means NaN.
            schema: dict[str, Any] = {"type": ["number", "null"] if json_type == "number" else json_type}
            if kind in "iuf":
                schema |= _bounds(type_.dtype)
            for length in reversed(type_.shape):
                schema = {"type": "array", "items": schema}
                if length != -1:
                    schema |= {"minItems": length, "maxItems": length}
            return schema
        case kind_:
            return dict(_JSON_TYPES[kind_])


def instance_to_json_schema(schema: Schema) -> dict[str, Any]:
    """Returns the JSON schema of one instance."""
    if schema.form is Form.BARE:
        return column_to_json_schema(schema.columns[0])
    if schema.form is Form.ARRAY:
        return _row_schema(schema)
    return {
        "type": "object",
        "properties": {column.name: column_to_json_schema(column) for column in schema.columns},
        "required": [column.name for column in schema.columns if column.required],
        "additionalProperties": False,
    }


def _row_schema(schema: Schema) -> dict[str, Any]:
    if schema.form is Form.BARE:
        return column_to_json_schema(schema.columns[0])
    cells = [column_to_json_schema(column) for column in schema.columns]
    return {
        "type": "array",
        "prefixItems": cells,
        "minItems": len(cells),
        "maxItems": len(cells),
        "items": {},
    }


def example_value(type_: Type) -> Any:
    """Returns a valid value of a type, for documentation and warm-up without a logged example."""
    match type_.kind:
        case Kind.ARRAY:
            assert type_.items is not None
            return [example_value(type_.items)]
        case Kind.MAP:
            assert type_.items is not None
            return {"key": example_value(type_.items)}
        case Kind.OBJECT:
            return {p.name: example_value(p.type) for p in type_.properties}
        case Kind.TENSOR:
            shape = [1 if length == -1 else length for length in type_.shape]
            return np.full(shape, "" if type_.dtype == "str" else 0, dtype=type_.dtype).tolist()
        case kind:
            return _EXAMPLE_VALUES[kind]


def example_instance(schema: Schema) -> Any:
    """Returns a valid instance generated from the types alone."""
    values = [example_value(column.type) for column in schema.columns]
    if schema.form is Form.BARE:
        return values[0]
    return values if schema.form is Form.ARRAY else dict(zip(schema.names, values, strict=True))


def made_up_body(schema: Schema) -> bytes:
    """Returns a request body with one valid instance, generated from the types alone."""
    return msgspec.json.encode({"instances": [example_instance(schema)]})


def instance_to_row(instance: Any, schema: Schema) -> Any:
    """Returns an instance of `predict` as a row of `predict_batch`."""
    if schema.form is Form.RECORD:
        return [instance.get(name) for name in schema.names]
    return instance


def openapi_document(
    manifest: Manifest | None, schema: Schema | None, examples: bytes | None
) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document; without a model, that of a service that is not ready."""
    paths: dict[str, Any] = {}
    for path, (summary, operation) in _PROBES.items():
        paths[path] = {"get": {"summary": summary, "operationId": operation, "responses": _OK}}
    title = "Model server (no model is ready)"
    if manifest is not None and schema is not None and examples is not None:
        title = f"{manifest.name} version {manifest.version}"
        body = msgspec.json.decode(examples)
        for prefix in ("/v1", ""):
            operation_suffix = "" if prefix else "_unversioned"
            paths[f"{prefix}/predict"] = {"post": _predict(manifest, schema, body, operation_suffix)}
            paths[f"{prefix}/predict_batch"] = {"post": _predict_batch(schema, body, operation_suffix)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": manifest.version if manifest else "0",
            "description": "Predictions of a model from an MLflow registry. "
            "Every error has the form of the schema `Error`.",
        },
        "paths": dict(
            sorted(paths.items(), key=lambda item: (not item[0].startswith("/v1/predict"), item[0]))
        ),
        "components": {"schemas": {"Error": _ERROR}},
    }


def _predict(manifest: Manifest, schema: Schema, body: Any, suffix: str) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "instances": {"type": "array", "minItems": 1, "items": instance_to_json_schema(schema)}
    }
    if schema.params:
        properties["params"] = {
            "type": ["object", "null"],
            "properties": {
                param.name: {
                    **(
                        {"type": "array", "items": type_to_json_schema(param.type)}
                        if param.is_list
                        else type_to_json_schema(param.type)
                    ),
                    "default": param.default,
                }
                for param in schema.params
            },
            "additionalProperties": False,
        }
    request = {
        "type": "object",
        "properties": properties,
        "required": ["instances"],
        "additionalProperties": False,
    }
    return {
        "summary": "Predictions for rows, with labels and probabilities by class",
        "operationId": f"predict{suffix}",
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": request, "example": body}},
        },
        "responses": _responses({JSON: {"schema": _predictions_schema(manifest)}}),
    }


def _predictions_schema(manifest: Manifest) -> dict[str, Any]:
    if manifest.task == "classification":
        prediction: dict[str, Any] = {"label": {}}
        if manifest.has_probabilities:
            prediction["probabilities"] = {"type": "object", "additionalProperties": {"type": "number"}}
    else:
        prediction = {"value": {}}
    return {
        "type": "object",
        "properties": {
            "model": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
            },
            "request_id": {"type": "string"},
            "predictions": {"type": "array", "items": {"type": "object", "properties": prediction}},
        },
    }


def _predict_batch(schema: Schema, body: Any, suffix: str) -> dict[str, Any]:
    rows = [instance_to_row(instance, schema) for instance in body["instances"]]
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": "The array of probabilities (or values) for an array of rows",
        "operationId": f"predict_batch{suffix}",
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"type": "array", "minItems": 1, "items": _row_schema(schema)},
                    "example": rows,
                },
                NPY: binary,
                ARROW: binary,
            },
        },
        "responses": _responses({JSON: {"schema": {"type": "array"}}, NPY: binary, ARROW: binary}),
    }


def _responses(content: dict[str, Any]) -> dict[str, Any]:
    error = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    return {
        "200": {"description": "The predictions", "content": content},
        "400": {"description": "The body, or a header, cannot be read", **error},
        "413": {"description": "Too many bytes or rows", **error},
        "415": {"description": "The media type is not supported", **error},
        "422": {"description": "The rows do not fit the model's signature", **error},
        "503": {"description": "No model is ready, or it is overloaded", **error},
        "504": {"description": "The model took too long", **error},
    }


_OK = {"200": {"description": "OK"}}

_PROBES = {
    "/livez": ("Whether the process is alive", "livez"),
    "/readyz": ("Whether a model is ready", "readyz"),
    "/healthz": ("The same as /readyz, with what is loaded", "healthz"),
    "/v1/models": ("The loaded models", "models"),
    "/metrics": ("Prometheus metrics", "metrics"),
}

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "row": {"type": "integer"},
                            "column": {"type": "string"},
                            "expected": {"type": "string"},
                            "got": {"type": "string"},
                        },
                    },
                },
            },
        },
        "request_id": {"type": "string"},
    },
}
