"""The nodes of a compiled pipeline, and the registry of compilers by type.

A node is a dataclass whose fields are its fitted state and whose methods use NumPy: the worker that runs it does not
import scikit-learn. Each family of estimators is one file, with the nodes and the functions that create them from a
fitted estimator's attributes. Only exactly registered types are compiled; a subclass may behave differently.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Cells, Columns, Data, NotCompiled, filled
from serving.runtime.compiled.sparse import Sparse

log = logging.getLogger("serving.prepare")


class Node:
    """A part of a compiled pipeline; its dataclass fields are saved to disk."""

    kinds: ClassVar[dict[str, type["Node"]]] = {}

    native_reason: str = ""
    """Why it stays in its own library; empty if it is compiled."""
    is_rowwise: ClassVar[bool] = True
    """Whether its result for a row never depends on the other rows."""

    def __init_subclass__(cls) -> None:
        Node.kinds[cls.__name__] = cls


class Transformer(Node):
    """A step that transforms data and keeps the number of rows."""

    def transform(self, data: Data) -> Data:
        """Returns the transformed rows.

        Raises:
            ValueError: if the original raises.
        """
        raise NotImplementedError

    def takes_cells(self) -> bool:
        """Whether `transform_cells` does the same for one row, of any dtype but float32."""
        return False

    def transform_cells(self, cells: Cells) -> Cells:
        """Returns one transformed row, as `transform` does, with fewer NumPy calls.

        Raises:
            Exception: of any kind, if only `transform` can process the row.
        """
        raise NotImplementedError

    def after(self, previous: "Transformer") -> "Transformer | None":  # noqa: ARG002  # for those that can
        """Returns one step that combines `previous` and this one; None if there is none."""
        return None


class Predictor(Node):
    """The last step: from rows to the model's output."""

    classes: npt.NDArray[Any] | None
    """The labels in the order of the probabilities' columns; None, or missing, for a regressor."""

    def output(self, data: Data) -> Output:
        """Returns the results of the original's `predict` (and `predict_proba`), bit for bit if possible.

        Raises:
            ValueError: if the original raises.
        """
        raise NotImplementedError

    def decision(self, data: Data) -> npt.NDArray[Any]:  # noqa: ARG002  # for those that have one
        """Returns the result of the original's `decision_function`, if it has one."""
        raise NotCompiled(f"{type(self).__name__} has no compiled decision function")

    def ask(self, method: str, data: Data) -> npt.NDArray[Any]:
        """Returns the result of the original's method of that name; native predictors only."""
        raise NotImplementedError


CompileTransformer = Callable[[Any, Data], Transformer]
CompilePredictor = Callable[[Any, Data], Predictor]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_TRANSFORMERS: dict[str, CompileTransformer] = {}
_PREDICTORS: dict[str, CompilePredictor] = {}


def type_name(fitted: Any) -> str:
    """Returns library and class, `sklearn.StandardScaler`: the key of the registry."""
    kind = type(fitted)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def compiles_transformer(*names: str) -> Callable[[_Function], _Function]:
    """Registers a function `(fitted, sample) -> Transformer` for types such as `sklearn.StandardScaler`.

    The sample is a few rows of the step's input. The function raises `NotCompiled` for unsupported settings.
    """

    def register(function: _Function) -> _Function:
        for name in names:
            _TRANSFORMERS[name] = function
        return function

    return register


def compiles_predictor(*names: str) -> Callable[[_Function], _Function]:
    """The same for last steps: a function `(fitted, sample) -> Predictor`."""

    def register(function: _Function) -> _Function:
        for name in names:
            _PREDICTORS[name] = function
        return function

    return register


class StandIn(Protocol):
    """Replaces parts that have no compiled form."""

    def transformer(self, fitted: Any, sample: Data, error: NotCompiled) -> Transformer:
        """Returns the part as a native step; raises the error if that is impossible."""

    def predictor(self, fitted: Any, error: NotCompiled) -> Predictor:
        """The same for an estimator."""


_STAND_IN: ContextVar[StandIn | None] = ContextVar("stand_in", default=None)


@contextlib.contextmanager
def standing_in(stand_in: StandIn) -> Iterator[None]:
    """Context in which parts without a compiled form are replaced, as deep inside the model as possible."""
    token = _STAND_IN.set(stand_in)
    try:
        yield
    finally:
        _STAND_IN.reset(token)


def compile_transformer(fitted: Any, sample: Data) -> Transformer:
    """Returns the compiled form of a fitted transformer.

    Args:
        fitted: the transformer.
        sample: a few rows of its input; the names and kinds of the columns matter.

    Raises:
        NotCompiled: it has none.
    """
    stand_in = _STAND_IN.get()
    try:
        step: Transformer = _compile(_TRANSFORMERS, fitted, sample)
        container = (getattr(fitted, "_sklearn_output_config", None) or {}).get("transform")
        if container in ("pandas", "polars"):
            step = Named(step, [str(name) for name in fitted.get_feature_names_out()])
        if stand_in is not None:
            _check_worth(step)
            step.transform(sample)
    except NotCompiled as error:
        if stand_in is None:
            raise
        return stand_in.transformer(fitted, sample, error)
    return step


def compile_predictor(fitted: Any, sample: Data) -> Predictor:
    """Returns the compiled form of a fitted estimator; see `compile_transformer`."""
    stand_in = _STAND_IN.get()
    try:
        predictor: Predictor = _compile(_PREDICTORS, fitted, sample)
        if isinstance(sample, Sparse):
            predictor.output(sample)  # most do not accept it
        if stand_in is not None:
            _check_worth(predictor)
    except NotCompiled as error:
        if stand_in is None:
            raise
        return stand_in.predictor(fitted, error)
    return predictor


def _compile(functions: dict[str, Callable[[Any, Data], Any]], fitted: Any, sample: Data) -> Any:
    function = functions.get(type_name(fitted))
    if function is None:
        raise NotCompiled(f"{type(fitted).__name__} has no compiled form")
    _check_names(fitted, sample)
    try:
        return function(fitted, sample)
    except NotCompiled:
        raise
    except Exception as error:
        log.info("compiling failed", exc_info=True)
        raise NotCompiled(f"compiling it raised {type(error).__name__}") from error


def nodes_of(node: Any) -> Iterator[Node]:
    """Yields a node and all nodes below it."""
    if isinstance(node, Node):
        yield node
        for field in dataclasses.fields(node):  # type: ignore[arg-type]
            if field.init:
                yield from nodes_of(getattr(node, field.name))
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from nodes_of(item)
    elif isinstance(node, dict):
        for item in node.values():
            yield from nodes_of(item)


def _check_worth(node: Node) -> None:
    """Rejects a form if all its computing parts are native: the whole is better native."""
    parts = [part for part in nodes_of(node) if isinstance(part, Transformer | Predictor)]
    reasons = [part.native_reason for part in parts if part.native_reason]
    if reasons and not any(_computes(part) for part in parts):
        raise NotCompiled("; ".join(dict.fromkeys(reasons)))


def _computes(part: Node) -> bool:
    """Whether it is compiled, and neither a container nor a passthrough."""
    _, *below = nodes_of(part)
    holds_others = any(isinstance(other, Transformer | Predictor) for other in below)
    return not (part.native_reason or holds_others or type(part).__name__ == "Identity")


def _check_names(fitted: Any, sample: Data) -> None:
    """Requires named columns in the order of the fit; a ColumnTransformer selects its own."""
    names = getattr(fitted, "feature_names_in_", None)
    if names is None or not isinstance(sample, Columns) or hasattr(fitted, "transformers_"):
        return
    if hasattr(fitted, "steps") or hasattr(fitted, "transformer_list"):
        return  # their parts are checked
    if type_name(fitted).startswith("lightgbm."):
        return  # it takes columns by position, and replaces blanks in names by underscores
    if not all(isinstance(name, str) for name in sample.names):
        return  # Source: sklearn.utils.validation._get_feature_names: such a frame has no names
    if list(names) != list(sample.names):
        raise NotCompiled(f"{type(fitted).__name__} was fitted on other columns")


@dataclass
class Named(Transformer):
    """Names the columns that a transformer with `set_output(transform="pandas")` returns."""

    step: Transformer
    names: list[str]

    def transform(self, data: Data) -> Data:
        """Returns columns."""
        out = self.step.transform(data)
        arrays = list(out.arrays) if isinstance(out, Columns) else list(np.ascontiguousarray(filled(out).T))
        return Columns(tuple(self.names), arrays)
