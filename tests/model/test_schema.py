"""The signature as MLflow writes it, read by `parse_schema`."""

import json

import numpy as np
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, TensorSpec
from mlflow.types import Schema as MlflowSchema
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from serving.errors import ModelRefused
from serving.model.schema import Column, Form, Kind, Schema, Type, parse_schema


def read(*specs, params=None) -> Schema:
    """What `parse_schema` makes of what MLflow writes into an MLmodel file."""
    written = ModelSignature(MlflowSchema(list(specs)), params=params and ParamSchema(params)).to_dict()
    return parse_schema(written["inputs"], written["params"])


@pytest.mark.parametrize("data_type", list(DataType), ids=lambda data_type: data_type.name)
def test_every_data_type_of_mlflow_is_read(data_type):
    (column,) = read(ColSpec(data_type, "a")).columns
    assert column == Column("a", Type(Kind(data_type.name)), required=True)


@pytest.mark.parametrize(
    ("spec", "type_", "in_words"),
    [
        (Array(DataType.long), Type(Kind.ARRAY, items=Type(Kind.LONG)), "array of long"),
        (
            Array(Array(DataType.string)),
            Type(Kind.ARRAY, items=Type(Kind.ARRAY, items=Type(Kind.STRING))),
            "array of array of string",
        ),
        (Map(DataType.double), Type(Kind.MAP, items=Type(Kind.DOUBLE)), "map of double"),
        (AnyType(), Type(Kind.ANY), "any"),
        (
            Object([Property("z", DataType.double), Property("b", Array(DataType.long), required=False)]),
            Type(
                Kind.OBJECT,
                properties=(
                    Column("b", Type(Kind.ARRAY, items=Type(Kind.LONG)), required=False),
                    Column("z", Type(Kind.DOUBLE)),
                ),
            ),
            "object {b: array of long?, z: double}",
        ),
    ],
    ids=str,
)
def test_nested_types_are_read_with_what_is_in_them(spec, type_, in_words):
    (column,) = read(ColSpec(spec, "a")).columns
    assert column.type == type_
    assert str(column.type) == in_words


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "int64", "float16", "float32", "float64"])
def test_a_tensor_keeps_its_dtype_and_loses_the_first_dimension(dtype):
    (column,) = read(TensorSpec(np.dtype(dtype), (-1, 28, -1))).columns
    assert column.type == Type(Kind.TENSOR, dtype=dtype, shape=(28, -1))
    assert str(column.type) == f"{dtype} tensor of shape (28, -1)"


@pytest.mark.parametrize("dtype", ["str", "object"])
def test_tensors_of_text_and_of_objects_are_text(dtype):
    (column,) = read(TensorSpec(np.dtype(dtype), (-1, 2))).columns
    assert column.type == Type(Kind.TENSOR, dtype="str", shape=(2,))


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "complex128", "bytes"])
def test_a_tensor_that_no_body_could_fill_is_refused(dtype):
    with pytest.raises(ModelRefused, match="not supported"):
        read(TensorSpec(np.dtype(dtype), (-1, 2)))


@pytest.mark.parametrize(
    ("specs", "form"),
    [
        ([ColSpec("double", "a"), ColSpec("long", "b")], Form.RECORD),
        ([ColSpec("double", "a")], Form.RECORD),
        ([TensorSpec(np.dtype("float64"), (-1, 2), "a")], Form.RECORD),
        ([ColSpec("double"), ColSpec("long")], Form.ARRAY),
        ([ColSpec("double")], Form.BARE),
        ([TensorSpec(np.dtype("float64"), (-1, 2))], Form.BARE),
    ],
)
def test_the_form_follows_from_the_names(specs, form):
    assert read(*specs).form is form


@pytest.mark.parametrize("data_type", list(DataType), ids=lambda data_type: data_type.name)
def test_null_is_allowed_where_the_type_has_a_missing_value_or_the_column_is_optional(data_type):
    required, optional = read(ColSpec(data_type, "a"), ColSpec(data_type, "b", required=False)).columns
    assert required.may_be_missing == (data_type.name in {"float", "double", "string", "datetime"})
    assert optional.may_be_missing


def test_params_are_read_with_their_defaults_and_lists():
    params = read(
        ColSpec("double", "a"),
        params=[
            ParamSpec("threshold", DataType.double, 0.5),
            ParamSpec("ids", DataType.long, [1, 2], shape=(-1,)),
            ParamSpec("options", Object([Property("q", DataType.long)]), {"q": 1}),
        ],
    ).params
    assert [(p.name, p.type.kind, p.default, p.is_list) for p in params] == [
        ("threshold", Kind.DOUBLE, 0.5, False),
        ("ids", Kind.LONG, [1, 2], True),
        ("options", Kind.OBJECT, {"q": 1}, False),
    ]


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "sparse", "name": "a"},
        {"name": "a"},
        {"type": "array", "name": "a"},
        {"type": "array", "items": {"type": "quaternion"}, "name": "a"},
        {"type": "map", "name": "a"},
        {"type": "object", "name": "a"},
        {"type": "tensor", "name": "a"},
        {"type": "tensor", "tensor-spec": {"dtype": "float99", "shape": [-1]}, "name": "a"},
    ],
    ids=json.dumps,
)
def test_an_unknown_type_is_refused(spec):
    with pytest.raises(ModelRefused, match="not supported"):
        parse_schema(json.dumps([spec]))


def test_a_signature_that_names_a_column_twice_is_refused():
    with pytest.raises(ModelRefused, match="twice"):
        read(ColSpec("double", "a"), ColSpec("long", "a"))


def test_a_signature_without_inputs_is_refused():
    with pytest.raises(ModelRefused, match="no inputs"):
        parse_schema("[]")


def test_labels_that_are_no_text_are_named_by_it_and_kept():
    schema = parse_schema(json.dumps([{"type": "double", "name": name} for name in (2, 0.5, True, ["a", 1])]))
    assert schema.names == ["2", "0.5", "True", "('a', 1)"]
    assert schema.labels == [2, 0.5, True, ("a", 1)]
    assert schema.form is Form.RECORD


def test_two_labels_that_are_the_same_text_are_refused():
    with pytest.raises(ModelRefused, match="twice"):
        parse_schema('[{"type": "double", "name": 1}, {"type": "double", "name": "1"}]')
