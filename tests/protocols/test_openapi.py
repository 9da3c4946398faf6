"""The OpenAPI document holds for the model that it describes."""

import json

import jsonschema
import msgspec
import numpy as np
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, TensorSpec
from mlflow.types import Schema as MlflowSchema
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from openapi_spec_validator import OpenAPIV31SpecValidator

from serving.codecs.json import JsonDecoder
from serving.errors import RequestError
from serving.model.prepared import Manifest
from serving.model.schema import parse_schema
from serving.protocols.openapi import example_instance, instance_to_row, openapi_document
from tests.support.manifests import some_manifest

SIGNATURES = {
    "record": MlflowSchema(
        [
            *[ColSpec(data_type, data_type.name) for data_type in DataType],
            *[ColSpec(data_type, f"optional {data_type.name}", required=False) for data_type in DataType],
            ColSpec(Array(DataType.long), "array"),
            ColSpec(Map(DataType.double), "map"),
            ColSpec(Object([Property("x", DataType.double), Property("y", DataType.long, False)]), "object"),
            ColSpec(AnyType(), "any"),
        ]
    ),
    "array": MlflowSchema([ColSpec("double"), ColSpec("long"), ColSpec("string")]),
    "bare": MlflowSchema([ColSpec("double")]),
    "tensor": MlflowSchema([TensorSpec(np.dtype("float32"), (-1, -1, 3))]),
    "text tensor": MlflowSchema([TensorSpec(np.dtype("str"), (-1, 2))]),
    "named tensors": MlflowSchema(
        [TensorSpec(np.dtype("int64"), (-1, 2), "a"), TensorSpec(np.dtype("bool"), (-1,), "b")]
    ),
}
PARAMS = ParamSchema(
    [ParamSpec("threshold", DataType.double, 0.5), ParamSpec("ids", DataType.long, [1, 2], shape=(-1,))]
)


def manifest_of(inputs: MlflowSchema, task: str = "classification") -> Manifest:
    written = ModelSignature(inputs, params=PARAMS).to_dict()
    return some_manifest(
        inputs=written["inputs"],
        params=written["params"],
        task=task,
        classes=[0, 1] if task == "classification" else None,
        has_probabilities=task == "classification",
    )


@pytest.fixture(params=SIGNATURES, ids=str)
def described(request):
    """A schema and the document made from it, as a client gets it."""
    manifest = manifest_of(SIGNATURES[request.param])
    schema = parse_schema(manifest.inputs, manifest.params)
    examples = msgspec.json.encode({"instances": [example_instance(schema)]})
    return schema, json.loads(msgspec.json.encode(openapi_document(manifest, schema, examples)))


def request_of(document, path):
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]


def is_described(body, document, path) -> bool:
    return jsonschema.Draft202012Validator(request_of(document, path)["schema"]).is_valid(body)


def is_read(body, decode) -> bool:
    try:
        decode(json.dumps(body).encode())
    except RequestError:
        return False
    return True


def test_the_document_is_valid_openapi(described):
    OpenAPIV31SpecValidator(described[1]).validate()


@pytest.mark.parametrize("task", ["classification", "regression", "other"])
def test_the_document_is_valid_for_every_task(task):
    manifest = manifest_of(SIGNATURES["array"], task)
    schema = parse_schema(manifest.inputs, manifest.params)
    OpenAPIV31SpecValidator(openapi_document(manifest, schema, b'{"instances": [[0.5, 1, "x"]]}')).validate()


def test_without_a_model_the_document_is_valid_and_predicts_nothing():
    document = openapi_document(None, None, None)
    OpenAPIV31SpecValidator(document).validate()
    assert not [path for path in document["paths"] if "predict" in path]


@pytest.mark.parametrize("path", ["/v1/predict", "/predict", "/v1/predict_batch", "/predict_batch"])
def test_the_example_satisfies_its_schema_and_is_read(described, path):
    schema, document = described
    example = request_of(document, path)["example"]
    assert is_described(example, document, path)
    decoder = JsonDecoder(schema, 10)
    decode = decoder.batch if "batch" in path else decoder.predict
    decode(json.dumps(example).encode())


def test_null_is_described_exactly_where_it_is_read(described):
    schema, document = described
    decoder = JsonDecoder(schema, 10)
    row = instance_to_row(example_instance(schema), schema)
    changed = [None] if schema.form == "bare" else [[*row[:i], None, *row[i + 1 :]] for i in range(len(row))]
    for values in changed:
        instance = dict(zip(schema.names, values, strict=True)) if schema.form == "record" else values
        body = {"instances": [instance]}
        assert is_described(body, document, "/v1/predict") == is_read(body, decoder.predict), values
        assert is_described([values], document, "/v1/predict_batch") == is_read([values], decoder.batch), (
            values
        )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"instances": []},
        {"instances": [{}]},
        {"instances": [[{}]]},
        {"instances": [[[1, 2]]]},
        {"instances": [[0.5, 1]]},
        {"instances": [[0.5, 1, "x", 2]]},
        {"instances": [[0.5, "1", "x"]]},
        {"instances": [0.5, "x"]},
        {"instances": ["a", True]},
        {"rows": []},
        [],
    ],
    ids=json.dumps,
)
def test_a_body_that_is_not_described_is_not_read(described, body):
    schema, document = described
    assert not is_described(body, document, "/v1/predict")
    assert not is_read(body, JsonDecoder(schema, 10).predict)


def test_params_are_described_with_their_defaults(described):
    schema, document = described
    example = request_of(document, "/v1/predict")["example"]
    params = request_of(document, "/v1/predict")["schema"]["properties"]["params"]["properties"]
    assert {name: param["default"] for name, param in params.items()} == {"threshold": 0.5, "ids": [1, 2]}
    decode = JsonDecoder(schema, 10).predict
    for value, holds in (({"threshold": 0.1, "ids": [3]}, True), ({"ids": 3}, False), ({"other": 1}, False)):
        body = example | {"params": value}
        assert is_described(body, document, "/v1/predict") == is_read(body, decode) == holds


def test_operation_ids_are_unique(described):
    operations = [op["operationId"] for path in described[1]["paths"].values() for op in path.values()]
    assert len(operations) == len(set(operations))
