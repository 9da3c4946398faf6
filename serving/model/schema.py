"""The MLflow signature as the contract of a model: its columns, their types, and which may be missing.

Parsed from the MLmodel file's JSON, so that workers do not need mlflow.
"""

import math
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from serving.errors import ModelRefused


class Kind(StrEnum):
    """MLflow's column types, and `tensor`.

    Source: mlflow.types.DataType and mlflow.types.schema (Array, Object, Map, AnyType).
    """

    BOOLEAN = "boolean"
    INTEGER = "integer"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    STRING = "string"
    BINARY = "binary"
    DATETIME = "datetime"
    ARRAY = "array"
    OBJECT = "object"
    MAP = "map"
    ANY = "any"
    TENSOR = "tensor"


MAY_BE_MISSING = frozenset({Kind.FLOAT, Kind.DOUBLE, Kind.STRING, Kind.DATETIME, Kind.ANY})
"""Kinds that have a value of their own for "missing", so that null is allowed in a required column."""

DTYPES: dict[Kind, npt.DTypeLike] = {
    Kind.BOOLEAN: np.bool_,
    Kind.INTEGER: np.int32,
    Kind.LONG: np.int64,
    Kind.FLOAT: np.float32,
    Kind.DOUBLE: np.float64,
    # MLflow passes datetimes to a model in nanoseconds (mlflow.types.DataType.datetime.to_pandas).
    Kind.DATETIME: "datetime64[ns]",
}
"""The dtype that a model gets for a kind; other kinds are Python objects."""


class Type(msgspec.Struct, frozen=True):
    """A type of the signature; arrays, objects and maps are nested."""

    kind: Kind
    items: "Type | None" = None
    """Of an array's elements, or of a map's values."""
    properties: tuple["Column", ...] = ()
    """Of an object, in the order of the signature."""
    dtype: str = ""
    """Of a tensor: NumPy's name."""
    shape: tuple[int, ...] = ()
    """Of a tensor, for ONE row: the signature's shape without its first dimension; -1 is any length."""

    def __str__(self) -> str:
        match self.kind:
            case Kind.ARRAY:
                return f"array of {self.items}"
            case Kind.MAP:
                return f"map of {self.items}"
            case Kind.OBJECT:
                inner = ", ".join(f"{p.name}: {p.type}{'' if p.required else '?'}" for p in self.properties)
                return f"object {{{inner}}}"
            case Kind.TENSOR:
                return f"{self.dtype} tensor of shape ({', '.join(map(str, self.shape))})"
            case kind:
                return str(kind.value)


NAN, NONE = "NaN", "None"
"""A model's missing value, as written in the manifest."""

_NAN_KINDS = frozenset({Kind.INTEGER, Kind.LONG, Kind.FLOAT, Kind.DOUBLE, Kind.STRING})


class Column(msgspec.Struct, frozen=True):
    """One input of the model."""

    name: str
    """Its name in requests: the label as text."""
    type: Type
    required: bool = True
    null: str | None = None
    """`NAN` or `NONE`: the model's missing value; None for pandas' default of the kind."""
    label: Any = ""
    """Its label in the training DataFrame if that is not text: a number, a boolean, a tuple."""

    @property
    def may_be_missing(self) -> bool:
        """Whether null is allowed in this column."""
        return not self.required or self.type.kind in MAY_BE_MISSING

    @property
    def missing(self) -> float | None:
        """The model's missing value: NaN or None; for datetimes always NaT.

        By default NaN for numbers and text (pandas' `str`), None for booleans and other Python objects.
        """
        if self.null is not None:
            return None if self.null == NONE else math.nan
        return math.nan if self.type.kind in _NAN_KINDS else None


class Form(StrEnum):
    """The form of one instance in JSON."""

    RECORD = "record"
    """`{"tenure": 1, …}`: the columns have names."""
    ARRAY = "array"
    """`[1, …]`: they have none."""
    BARE = "bare"
    """The value itself: the signature is one tensor, or one column without a name."""


class Param(msgspec.Struct, frozen=True):
    """A parameter of `predict` that a request may set."""

    name: str
    type: Type
    default: Any = None
    is_list: bool = False


MAX_SHOWN = 20
"""Names of columns in a message, and letters of each."""


class Schema(msgspec.Struct, frozen=True):
    """The inputs of a model."""

    columns: tuple[Column, ...]
    form: Form
    params: tuple[Param, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns' names, in the order of the signature."""
        return [column.name for column in self.columns]

    @property
    def order(self) -> str:
        """The order of a row's values, for messages: ` (tenure, charges, … 3 more)`; empty where columns have no names."""
        if self.form is not Form.RECORD:
            return ""
        shown = [
            name if len(name) <= MAX_SHOWN else f"{name[: MAX_SHOWN - 1]}…" for name in self.names[:MAX_SHOWN]
        ]
        more = len(self.columns) - len(shown)
        return f" ({', '.join(shown)}{f', … {more} more' if more else ''})"

    @property
    def labels(self) -> list[Any]:
        """The columns' labels in the model's DataFrame, usually text."""
        return [column.name if column.label == "" else column.label for column in self.columns]


class Inputs(msgspec.Struct, frozen=True):
    """Rows that fit a schema: one array per column, in the order of the signature.

    Each array has shape `(n_rows,)`, or `(n_rows, *shape)` for a tensor, and the dtype of `DTYPES`; a
    missing value is `Column.missing`, or NaT. Integers with missing values are float64, or objects if a double cannot
    represent one of them; booleans with missing values, and numbers whose missing value is None, are objects.
    """

    columns: tuple[npt.NDArray[Any], ...]
    n_rows: int
    object_bytes: int = 0
    """Approximate memory of texts, lists and maps, if counted: for large JSON bodies, and for Arrow."""


def take(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Returns the rows from `start` to before `stop`."""
    return Inputs(tuple(column[start:stop] for column in inputs.columns), min(stop, inputs.n_rows) - start)


def join(parts: list[Inputs]) -> Inputs:
    """Returns the rows of several inputs of one schema, one after the other."""
    columns = tuple(np.concatenate(same) for same in zip(*(part.columns for part in parts), strict=True))
    return Inputs(columns, sum(part.n_rows for part in parts))


def parse_schema(inputs: str, params: str | None = None, nulls: dict[str, str] | None = None) -> Schema:
    """Reads the `inputs` and `params` of an MLmodel file's signature.

    Args:
        inputs: as MLflow writes them.
        params: the same.
        nulls: the columns' `null`, by name, if learned from the model.

    Raises:
        ModelRefused: the signature has an unsupported type, or no inputs.
    """
    specs = msgspec.json.decode(inputs, type=list[dict[str, Any]])
    if not specs:
        raise ModelRefused(
            "the model's signature has no inputs; log it with "
            "signature=mlflow.models.infer_signature(X, model.predict(X))"
        )
    columns = tuple(_column(spec, str(position)) for position, spec in enumerate(specs))
    if nulls:
        columns = tuple(msgspec.structs.replace(c, null=nulls.get(c.name)) for c in columns)
    if len({column.name for column in columns}) != len(columns):
        raise ModelRefused(
            "the model's signature names a column twice; rename the columns that it is trained on, and log it again"
        )
    if all("name" in spec for spec in specs):
        form = Form.RECORD
    else:
        form = Form.BARE if len(specs) == 1 else Form.ARRAY
    parsed = [_param(spec) for spec in msgspec.json.decode(params or "[]", type=list[dict[str, Any]])]
    return Schema(columns, form, tuple(parsed))


def _column(spec: dict[str, Any], default_name: str) -> Column:
    label = _label(spec.get("name", default_name))
    # pandas' `to_json` and pyarrow convert such labels to text in the same way.
    return Column(
        str(label),
        _type(spec),
        spec.get("required", True),
        label="" if isinstance(label, str) else label,
    )


def _label(value: Any) -> Any:
    """A label of several levels is a tuple in pandas, and a list in JSON."""
    return tuple(map(_label, value)) if isinstance(value, list) else value


def _param(spec: dict[str, Any]) -> Param:
    is_list = bool(spec.get("shape"))
    return Param(spec["name"], _type(spec), spec.get("default"), is_list)


def _type(spec: dict[str, Any]) -> Type:
    try:
        kind = Kind(spec["type"])
        match kind:
            case Kind.ARRAY:
                return Type(kind, items=_type(spec["items"]))
            case Kind.MAP:
                return Type(kind, items=_type(spec["values"]))
            case Kind.OBJECT:
                properties = sorted(spec["properties"].items())
                return Type(kind, properties=tuple(_column(p | {"name": n}, n) for n, p in properties))
            case Kind.TENSOR:
                tensor = spec["tensor-spec"]
                dtype = "str" if tensor["dtype"] in ("str", "object") else np.dtype(tensor["dtype"]).name
                if dtype != "str" and np.dtype(dtype).kind not in "biuf":
                    raise ValueError(dtype)
                return Type(kind, dtype=dtype, shape=tuple(tensor["shape"][1:]))
            case _:
                return Type(kind)
    except (ValueError, KeyError, TypeError):
        raise ModelRefused(
            f"the model's signature has a type that is not supported: {spec}; log it with columns of MLflow's types, "
            "or tensors of numbers or text"
        ) from None
