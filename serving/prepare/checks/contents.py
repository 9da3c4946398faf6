"""Checks every object that a loaded model can reach, and refuses functions that are not listed.

A trusted type does what its state says. A text vectorizer with `input="filename"` opens the files that callers
name, wherever it is in the model; and a bound method is another function that nobody has checked.
"""

import functools
import gc
import inspect
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from serving.errors import ModelRefused
from serving.prepare.checks.trees import check_trees
from serving.runtime.trusted import METHODS_OF_TEXT, Trust, find, is_value

_PLAIN = frozenset({bool, int, float, complex, str, bytes, bytearray, type(None), slice, range})

_INTERPOLATION = "scipy.interpolate._interpolate.interp1d"

_METHODS = (
    types.MethodType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)

_METHODS_OF_TEXT = [getattr(str, name) for name in sorted(METHODS_OF_TEXT)]


def check_contents(model: Any, trust: Trust) -> None:
    """Refuses a model that would call functions, or open files, chosen by callers or its author.

    Checks attributes, containers, fitted parts, `__slots__`, arrays of objects, partials and the state of compiled
    classes, each object once.

    Raises:
        ModelRefused: something in it reads files that callers name, or may call an unlisted function.
    """
    # Objects seen are kept alive: else a new one could reuse an address.
    seen: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if type(part) in _PLAIN or isinstance(part, np.generic) or id(part) in seen:
            continue
        seen[id(part)] = part
        waiting += _look(part, trust)


def _look(part: Any, trust: Trust) -> list[Any]:
    """Checks one object; returns those that it refers to."""
    if isinstance(part, np.ndarray):
        return list(_elements(part))
    if isinstance(part, pd.Index):
        return part.tolist() if part.dtype.kind == "O" else []
    if inspect.isclass(part):
        if not is_value(part) and _name(part) not in trust.own_types:
            raise ModelRefused(
                f"it holds the class {_name(part)} as a value, which could be called; log it without"
            )
        return []
    if isinstance(part, functools.partial):
        return [part.func, part.args, part.keywords, vars(part)]
    if isinstance(part, types.ModuleType):
        raise ModelRefused(f"it holds the module {part.__name__}, which could be called; log it without")
    if isinstance(part, _METHODS) or _bound_to(part) is not None:
        if _name(part) not in trust.own_types and part not in _METHODS_OF_TEXT:
            raise ModelRefused(
                f"it holds the method {_name(part)} as a value, which cannot be checked; log it with a function of a "
                "module, which SERVING_TRUSTED_TYPES can name"
            )
        return [_bound_to(part)]
    if inspect.isroutine(part) or isinstance(part, np.ufunc) or type(part) is type(np.mean):
        if not _is_trusted(part, trust):
            raise ModelRefused(
                f"it calls {_name(part)}, which is not trusted; use a library function without side effects, or one of "
                "your own module, which SERVING_TRUSTED_TYPES can name"
            )
        return []
    _check_input(part)
    check_trees(part)
    return [other for other in gc.get_referents(part) if other is not type(part)]


def _elements(array: Any) -> Iterator[Any]:
    """The objects in an array, in the fields of a structured one, and in attributes, as of a masked array."""
    if array.dtype.names is not None:
        yield from (array[name] for name in array.dtype.names if array.dtype[name].hasobject)
    elif array.dtype.hasobject:
        yield from np.asarray(array).ravel().tolist()
    yield from getattr(array, "__dict__", {}).values()


def _bound_to(part: Any) -> Any:
    owner = getattr(part, "__self__", None)
    is_callable = inspect.isroutine(part)
    return owner if is_callable and owner is not None and not isinstance(owner, types.ModuleType) else None


def _is_trusted(function: Any, trust: Trust) -> bool:
    """Whether a function is trusted, and not another one of that name."""
    name = getattr(function, "__name__", "")
    names = {_name(function), f"numpy.{name}", f"scipy.special.{name}"}
    # A SciPy interpolation stores the function that it uses, one of its own.
    if _name(function).startswith(f"{_INTERPOLATION}._call_"):
        return vars(find(_INTERPOLATION)).get(name) is function
    return any(trust.covers(name) and find(name) is function for name in names)


def _check_input(part: Any) -> None:
    state = getattr(part, "__dict__", None)
    if not state or "input" not in state:
        return
    is_vectorizer = any(kind.__name__ == "_VectorizerMixin" for kind in type(part).__mro__)
    source = state["input"] if isinstance(state["input"], str) else ""
    if source in ("filename", "file") or (is_vectorizer and source != "content"):
        raise ModelRefused(
            f'its {type(part).__name__} reads files that callers name (its input is not "content"); '
            'train it with input="content", and send texts'
        )


def _name(part: Any) -> str:
    owner = getattr(part, "__self__", None)
    module = getattr(part, "__module__", None) or type(owner).__module__
    return f"{module}.{getattr(part, '__qualname__', type(part).__qualname__)}"
