"""Reads pickles as data: imports only listed names and calls only a few constructors.

`pickle.load` calls whatever the file names, with any arguments. This module replaces every opcode that makes a call:

GLOBAL, STACK_GLOBAL     find only what `serving.runtime.trusted` lists, by module and name, without attributes
REDUCE                   calls only the constructors below, which check their arguments
NEWOBJ                   creates instances of listed classes, by `__new__` without arguments
BUILD                    sets the state of an object that the file created, once
APPEND(S), SETITEM(S)    fill only lists, dicts and sets, no other type with such a method
INST, OBJ, NEWOBJ_EX, EXT*, PERSID, out-of-band buffers: rejected; no listed library writes them

A crafted state could make a NumPy array or dtype reach beyond its memory. So a dtype's state must be exactly what
NumPy writes for that dtype, and an array accepts one state only, while it is empty.

Source: Python's Lib/pickle.py and pickletools; numpy/_core/src/multiarray/methods.c (array_setstate) and
descriptor.c (arraydescr_setstate).
"""

import functools
import inspect
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from serving.runtime.trusted import METHODS_OF_TEXT, Trust, find


class Refused(Exception):
    """The pickle does what no model needs; the message is a clause without the pickle's values."""


class _Constructor:
    """A function that a pickle may call, but not store in the model."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise Refused(f"it makes {what} in a way that its library does not")


def _dtype(spec: Any, align: Any = False, _: Any = True) -> Any:
    _check(type(spec) is str, "a NumPy dtype")
    return np.dtype(spec, bool(align))


_ALIGNED = 0x80
"""NumPy's flag of a structure with C's layout. Source: numpy/ndarraytypes.h, NPY_ALIGNED_STRUCT."""


def _dtype_of_state(dtype: np.dtype[Any], state: Any) -> np.dtype[Any]:
    """Returns the dtype that a state describes, created by NumPy."""
    _check(type(state) is tuple and len(state) >= 8, "a NumPy dtype")
    _, order, subdtype, names, fields, itemsize = state[:6]
    made: Any = dtype
    if names is not None:
        _check(type(names) is tuple and type(fields) is dict, "a NumPy dtype")
        parts = [fields[name] for name in names]
        _check(all(isinstance(part[0], np.dtype) for part in parts), "a NumPy dtype")
        made = np.dtype(
            {
                "names": list(names),
                "formats": [part[0] for part in parts],
                "offsets": [part[1] for part in parts],
                "itemsize": itemsize,
            },
            align=bool(state[7] & _ALIGNED) if type(state[7]) is int else False,
        )
    elif subdtype is not None:
        _check(type(subdtype) is tuple and isinstance(subdtype[0], np.dtype), "a NumPy dtype")
        made = np.dtype(subdtype)
    elif len(state) == 9:  # datetimes: the metadata has the unit
        unit, number, *_ = state[8][1]
        _check(type(unit) is bytes and type(number) is int, "a NumPy dtype")
        made = np.dtype(f"{dtype.char}8[{number}{unit.decode()}]")
    if order in ("<", ">", "=") and names is None:
        made = made.newbyteorder(order)
    written = made.__reduce__()
    _check(len(written) > 2 and _same_state(written[2], state), "a NumPy dtype")
    return made  # type: ignore[no-any-return]


def _same_state(written: Any, state: Any) -> bool:
    # For datetimes, NumPy writes the metadata as an empty dict or None.
    return len(written) == len(state) and all(
        one == other for one, other in zip(written[:8], state[:8], strict=True)
    )


def _empty_array(kind: Any, shape: Any, typecode: Any) -> Any:
    _check(kind is np.ndarray and shape == (0,) and typecode == b"b", "a NumPy array")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _empty_masked_array(kind: Any, base: Any, shape: Any, typecode: Any) -> Any:
    is_empty = base is np.ndarray and shape == (0,) and typecode in ("b", b"b")
    _check(kind is np.ma.MaskedArray and is_empty, "a NumPy array")
    return find("numpy.ma.core._mareconstruct")(kind, base, (0,), "b")


def _array(buffer: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Any:
    is_plain = isinstance(buffer, (bytes, bytearray)) and isinstance(dtype, np.dtype) and not dtype.hasobject
    _check(is_plain and type(shape) is tuple and order in ("C", "F", "K"), "a NumPy array")
    return find("numpy._core.numeric._frombuffer")(buffer, dtype, shape, order, axes)


def _scalar(dtype: Any, value: Any) -> Any:
    is_plain = isinstance(dtype, np.dtype) and not dtype.hasobject and type(value) is bytes
    _check(is_plain and len(value) == dtype.itemsize > 0, "a NumPy number")
    return np.frombuffer(value, dtype)[0]


def _tree(n_features: Any, n_classes: Any, n_outputs: Any) -> Any:
    from sklearn.tree._tree import Tree

    is_array = type(n_classes) is np.ndarray and n_classes.dtype == np.intp and n_classes.ndim == 1
    _check(is_array and len(n_classes) == n_outputs > 0 and bool((n_classes > 0).all()), "a tree")
    return Tree(n_features, n_classes, n_outputs)


def _partial(function: Any) -> Any:
    _check(_is_function(function), "a partial")
    return functools.partial(function)


def _is_function(found: Any) -> bool:
    return not inspect.isclass(found) and (
        inspect.isroutine(found) or isinstance(found, np.ufunc) or type(found) is type(np.mean)
    )


def _default_dict(factory: Any = None) -> Any:
    _check(factory in (None, list, dict, int, float, set, OrderedDict), "a defaultdict")
    return defaultdict(factory)


def _of_bytes(value: Any = b"") -> Any:
    _check(type(value) is bytes, "bytes")
    return bytearray(value)


def _of_class(module: str, function: str, bases: tuple[str, ...]) -> Callable[..., Any]:
    """Calls a library's function that creates an object, only for classes of that library."""

    def make(kind: Any, *more: Any) -> Any:
        allowed = tuple(found for name in bases if (found := find(f"{module}.{name}")) is not None)
        _check(inspect.isclass(kind) and issubclass(kind, allowed), "an object")
        return find(f"{module}.{function}")(kind, *more)

    return make


def _random(name: str) -> Callable[..., Any]:
    def make(source: Any) -> Any:
        from numpy.random import BitGenerator

        is_class = inspect.isclass(source) and issubclass(source, BitGenerator)
        _check(is_class if name == "__bit_generator_ctor" else isinstance(source, BitGenerator), "an object")
        return find(f"numpy.random._pickle.{name}")(source)

    return make


def _method_of_text(owner: Any, name: Any) -> Any:
    _check(owner is str and type(name) is str and name in METHODS_OF_TEXT, "a method")
    return getattr(str, name)


def _index(kind: Any, state: Any) -> Any:
    import pandas as pd

    fields = {"data", "name"} if kind is pd.Index else {"name", "start", "stop", "step"}
    _check(kind in (pd.Index, pd.RangeIndex) and type(state) is dict and set(state) == fields, "an Index")
    _check(
        kind is pd.RangeIndex or isinstance(state["data"], (np.ndarray, pd.api.extensions.ExtensionArray)),
        "an Index",
    )
    return find("pandas.core.indexes.base._new_Index")(kind, state)


def _string_dtype(storage: Any, na_value: Any = np.nan) -> Any:
    import pandas as pd

    _check(storage in ("python", "pyarrow") and (na_value is pd.NA or type(na_value) is float), "a dtype")
    return pd.StringDtype(storage, na_value)


def _arrow_type(name: Any) -> Any:
    import pyarrow as pa

    _check(name in ("string", "large_string"), "an Arrow type")
    return pa.type_for_alias(name)


def _arrow_buffer(value: Any) -> Any:
    import pyarrow as pa

    _check(type(value) in (bytes, bytearray), "an Arrow buffer")
    return pa.py_buffer(bytes(value))


def _arrow_array(data: Any) -> Any:
    import pyarrow as pa

    _check(
        type(data) is tuple and len(data) == 7 and data[0] in (pa.string(), pa.large_string()),
        "an Arrow array",
    )
    _, length, n_missing, offset, buffers, children, dictionary = data
    are_numbers = all(type(one) is int for one in (length, n_missing, offset))
    are_buffers = type(buffers) is list and all(one is None or isinstance(one, pa.Buffer) for one in buffers)
    _check(
        are_numbers and are_buffers and len(buffers) == 3 and children == [] and dictionary is None,
        "an Arrow array",
    )
    made = find("pyarrow.lib._restore_array")(data)
    # Arrow's check of untrusted data: all offsets lie within the buffers.
    made.validate(full=True)
    return made


def _plain(kind: type, *, takes_numbers: bool = True) -> Callable[..., Any]:
    """Calls a class with numbers, or with lists and tuples."""

    def make(*arguments: Any) -> Any:
        kinds = (int, float, bool, type(None), np.generic) if takes_numbers else (list, tuple)
        _check(all(isinstance(one, kinds) for one in arguments), f"a {kind.__name__}")
        return kind(*arguments)

    return make


def _loss(name: str) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        _check(all(isinstance(one, (int, float)) for one in arguments), "a loss")
        return find(name)(*arguments)

    return make


_CY_LOSSES = (
    *("HalfSquaredError", "AbsoluteError", "PinballLoss", "HuberLoss", "HalfPoissonLoss", "HalfGammaLoss"),
    *("HalfTweedieLoss", "HalfTweedieLossIdentity", "HalfBinomialLoss", "ExponentialLoss"),
    "HalfMultinomialLoss",
)

CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _array,
    "numpy.ma.core._mareconstruct": _empty_masked_array,
    **{
        f"numpy.random._pickle.{name}": _random(name)
        for name in ("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor")
    },
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": _of_class(
        "numpy.random.bit_generator", "__pyx_unpickle_SeedSequence", ("SeedSequence",)
    ),
    "builtins.bytearray": _of_bytes,
    "builtins.getattr": _method_of_text,
    "builtins.complex": _plain(complex),
    "builtins.range": _plain(range),
    "builtins.slice": _plain(slice),
    "builtins.set": _plain(set, takes_numbers=False),
    "builtins.frozenset": _plain(frozenset, takes_numbers=False),
    "collections.OrderedDict": _plain(OrderedDict, takes_numbers=False),
    "collections.defaultdict": _default_dict,
    "functools.partial": _partial,
    "pandas.StringDtype": _string_dtype,
    "pandas.core.indexes.base._new_Index": _index,
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": _of_class(
        "pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked", ("NDArrayBacked",)
    ),
    "pyarrow.lib.type_for_alias": _arrow_type,
    "pyarrow.lib.py_buffer": _arrow_buffer,
    "pyarrow.lib._restore_array": _arrow_array,
    "sklearn.tree._tree.Tree": _tree,
    "sklearn.metrics._dist_metrics.newObj": _of_class(
        "sklearn.metrics._dist_metrics", "newObj", ("DistanceMetric",)
    ),
    **{
        f"sklearn.neighbors.{module}.newObj": _of_class(
            f"sklearn.neighbors.{module}", "newObj", ("BinaryTree64", "BinaryTree32")
        )
        for module in ("_kd_tree", "_ball_tree")
    },
    **{f"sklearn._loss._loss.Cy{name}": _loss(f"sklearn._loss._loss.Cy{name}") for name in _CY_LOSSES},
    **{
        f"sklearn._loss._loss.__pyx_unpickle_Cy{name}": _of_class(
            "sklearn._loss._loss", f"__pyx_unpickle_Cy{name}", (f"Cy{name}",)
        )
        for name in _CY_LOSSES
    },
    **{
        f"sklearn.linear_model._sgd_fast.{name}": _loss(f"sklearn.linear_model._sgd_fast.{name}")
        for name in (
            *("Hinge", "SquaredHinge", "ModifiedHuber", "EpsilonInsensitive", "SquaredEpsilonInsensitive"),
        )
    },
}
"""Callables by the name that pickles use; each checks its arguments."""

ONLY_CALLED = frozenset(CONSTRUCTORS) - {"builtins.set"}


def _spell(module: str, name: str) -> str:
    """The name of a global as spelled in the lists."""
    if module == "_loss":
        module = "sklearn._loss._loss"
    return f"{module.replace('numpy.core.', 'numpy._core.')}.{name}"


_READ = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "EMPTY_LIST", "DICT", "EMPTY_DICT"),
    *("EMPTY_SET", "FROZENSET", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    *("GLOBAL", "STACK_GLOBAL"),
)
"""Opcodes that create plain values, or call `find_class`."""

_Unpickler: Any = pickle._Unpickler  # noqa: SLF001  # the Python version: its opcodes can be replaced


class _Reader(_Unpickler):  # type: ignore[misc]
    """Implements the opcodes that make calls by `call`, `make` and `build`."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        getattr(pickle, name)[0]: _Unpickler.dispatch[getattr(pickle, name)[0]] for name in _READ
    }

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:
            opcode = error.args[0] if error.args else None
            if isinstance(opcode, int) and opcode not in self.dispatch:
                raise Refused("it has an opcode that no model needs") from None
            raise

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.make(self.stack[-1], arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        built = self.build(target, state)
        if built is not target:
            self.stack[-1] = built
            for key in [key for key, value in self.memo.items() if value is target]:
                self.memo[key] = built

    def load_append(self) -> None:
        value = self.stack.pop()
        self.fill(self.stack[-1], [value], list)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self.fill(self.stack[-1], items, list)

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.fill(self.stack[-1], items, set)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill(self.stack[-1], [(key, value)], dict)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.fill(self.stack[-1], list(zip(items[::2], items[1::2], strict=True)), dict)

    def call(self, function: Any, arguments: Any) -> Any:
        raise NotImplementedError

    def make(self, kind: Any, arguments: Any) -> Any:
        raise NotImplementedError

    def build(self, target: Any, state: Any) -> Any:
        raise NotImplementedError

    def fill(self, target: Any, items: list[Any], kind: type) -> None:
        if not isinstance(target, kind):
            raise Refused("it fills an object other than a list, dict or set")
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, (dict, set)):
            target.update(items)

    for _name in ("REDUCE", "NEWOBJ", "BUILD", "APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"):
        dispatch[getattr(pickle, _name)[0]] = locals()[f"load_{_name.lower()}"]


class _Stub:
    """Replaces every object of a pickle while its names are read."""


class _Names(_Reader):
    """Records the names that a pickle needs; creates nothing."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.names: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add(_spell(module, name))
        return _Stub

    def call(self, function: Any, arguments: Any) -> Any:  # noqa: ARG002  # nothing is called
        return _Stub()

    def make(self, kind: Any, arguments: Any) -> Any:  # noqa: ARG002
        return _Stub()

    def build(self, target: Any, state: Any) -> Any:  # noqa: ARG002
        return target

    def fill(self, target: Any, items: list[Any], kind: type) -> None:
        if isinstance(target, kind):
            super().fill(target, [item for item in items if kind is list or _is_hashable(item)], kind)


def _is_hashable(item: Any) -> bool:
    try:
        hash(item[0] if isinstance(item, tuple) else item)
    except TypeError:
        return False
    return True


class _Restricted(_Reader):
    """Creates what is listed."""

    def __init__(self, file: Any, trust: Trust) -> None:
        super().__init__(file)
        self._trust = trust
        self._unbuilt: dict[int, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        spelled = _spell(module, name)
        if "." not in name:
            if spelled in ONLY_CALLED and not inspect.isclass(find(spelled)):
                return _Constructor(CONSTRUCTORS[spelled])
            if self._trust.covers(spelled) or spelled in CONSTRUCTORS:
                found = find(spelled)
                if found is not None:
                    return found
        raise Refused(f"it needs {spelled}")

    def call(self, function: Any, arguments: Any) -> Any:
        if type(arguments) is not tuple:
            raise Refused("it calls something without arguments")
        if inspect.isclass(function):
            make = CONSTRUCTORS.get(_spell(function.__module__, function.__qualname__))
        else:
            make = function.make if type(function) is _Constructor else None
        if make is None:
            raise Refused(f"it calls {name_of(function)}")
        return self._remember(make(*arguments))

    def make(self, kind: Any, arguments: Any) -> Any:
        if not inspect.isclass(kind):
            raise Refused(f"it makes an object of {name_of(kind)}")
        if kind is OrderedDict and arguments == ():
            return OrderedDict()
        if issubclass(kind, tuple) and kind is not tuple and type(arguments) is tuple:
            return tuple.__new__(kind, arguments)
        # Compiled classes have no __dict__, and need their constructor.
        is_plain = kind.__dictoffset__ != 0 and not issubclass(kind, functools.partial)
        if (
            arguments != ()
            or not is_plain
            or not self._trust.covers(_spell(kind.__module__, kind.__qualname__))
        ):
            raise Refused(f"it makes an object of {name_of(kind)}")
        return self._remember(kind.__new__(kind))

    def build(self, target: Any, state: Any) -> Any:
        if isinstance(target, np.dtype):
            return _dtype_of_state(target, state)
        if self._unbuilt.pop(id(target), None) is None:
            raise Refused(
                f"it sets the state of a {name_of(type(target))} that it did not make, or sets it twice"
            )
        if isinstance(target, functools.partial):
            is_same = type(state) is tuple and len(state) == 4 and state[0] is target.func
            _check(is_same and state[3] is None, "a partial")
        set_state = getattr(type(target), "__setstate__", None)
        if set_state is not None:
            set_state(target, state)
        elif type(state) is dict and all(type(key) is str for key in state):
            vars(target).update(state)
        else:
            raise Refused(f"the state of a {name_of(type(target))} must be a dict")
        return target

    def _remember(self, made: Any) -> Any:
        self._unbuilt[id(made)] = made
        return made


def name_of(found: Any) -> str:
    """Returns the full name of a class, or of the class of any other object."""
    kind = found if inspect.isclass(found) else type(found)
    return f"{kind.__module__}.{kind.__qualname__}"


def names_in(file: Path) -> list[str]:
    """Returns the dotted names that a pickle needs besides the constructors here; creates nothing.

    Raises:
        Refused: it is not a model's pickle.
        Exception: of many kinds, if it is damaged or not a pickle.
    """
    with file.open("rb") as stream:
        reader = _Names(stream)
        reader.load()
    return sorted(reader.names - frozenset(CONSTRUCTORS))


def load_pickle(file: Path, trust: Trust) -> Any:
    """Returns the object in a pickle of trusted contents only.

    Raises:
        Refused: it contains something untrusted, or does what no model needs.
        Exception: whatever a listed class raises for an invalid state.
    """
    with file.open("rb") as stream:
        return _Restricted(stream, trust).load()
