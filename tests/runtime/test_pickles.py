"""`serving.runtime.pickles`: pickles of the libraries are read, and whatever else a pickle can do is not done."""

import collections
import contextlib
import functools
import io
import operator
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, minmax_scale
from sklearn.utils import all_estimators
from skops.io.exceptions import UnsupportedTypeException

from serving.prepare.checks.contents import check_contents
from serving.runtime.pickles import Refused, load_pickle, names_in
from serving.runtime.trusted import Trust, is_listed

X = np.abs(np.random.default_rng(0).normal(size=(60, 4)))
Y = np.arange(60) % 3
FRAME = pd.DataFrame(X[:, :2], columns=["a", "b"]).assign(c=["x", "y", "z"] * 20)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """Reads a pickle, given as its bytes or as the object in it, as a worker does."""

    def load(content: Any, trust: Trust = Trust()) -> Any:  # noqa: B008  # it is not changed
        file = tmp_path / "model.pkl"
        file.write_bytes(content if isinstance(content, bytes) else cloudpickle.dumps(content))
        return load_pickle(file, trust)

    return load


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that an attack of this test would make."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pwned"


def fitted(kind: Any) -> Any:
    """An estimator of a class, fitted on whatever it takes; None where it takes nothing of these."""
    from sklearn.utils._test_common.instance_generator import _construct_instances

    texts, targets = ["aa bb cc", "bb cc dd"] * 30, np.column_stack([Y, Y % 2])
    tries: list[tuple[Any, ...]] = [(X, Y), (X, X[:, 0]), (X, targets), (X, X[:, :2]), (X[:, 0], X[:, 1])]
    tries += [(X, Y % 2), (X[:, :1], X[:, 0]), (texts, Y), (Y,), ([{"a": 1}, {"b": 2}],), (X,)]
    try:
        model = next(iter(_construct_instances(kind)))
    except Exception:  # an abstract one
        return None
    for arguments in tries:
        try:
            model.fit(*arguments)
        except Exception:  # it takes others
            continue
        return model, arguments[0]
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for _, kind in all_estimators()], ids=lambda kind: kind.__name__)
def test_every_estimator_of_scikit_learn_is_read_from_skops_and_pickle(
    kind: Any, load: Any, tmp_path: Path
) -> None:
    found = fitted(kind)
    if found is None:
        assert kind.__name__ in {"SparseCoder", "KernelCenterer", "FrozenEstimator"}
        return
    model, rows = found
    with contextlib.suppress(UnsupportedTypeException):  # of Birch alone
        needed = skops.io.get_untrusted_types(data=skops.io.dumps(model))
        assert [name for name in needed if not is_listed(name)] == []
    for protocol in (pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL):
        again = load(cloudpickle.dumps(model, protocol))
        assert [name for name in names_in(tmp_path / "model.pkl") if not is_listed(name)] == []
        check_contents(again, Trust())
        assert type(again) is kind
        # One that answers at random, and one whose compiled kernel sums in another order each time.
        if hasattr(model, "predict") and kind.__name__ not in {"DummyClassifier", "KernelRidge"}:
            np.testing.assert_array_equal(again.predict(rows), model.predict(rows))


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(n_estimators=2),
        xgboost.XGBRFClassifier(n_estimators=2),
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1),
        make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(n_estimators=2, verbose=-1)),
        make_pipeline(
            FunctionTransformer(np.log1p), FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": 1})
        ),
        make_pipeline(FunctionTransformer(functools.partial(np.round, decimals=2)), LogisticRegression()),
        GridSearchCV(KNeighborsClassifier(algorithm="kd_tree"), {"n_neighbors": [1, 2]}, cv=2),
        RandomForestClassifier(3, random_state=np.random.RandomState(0)),
        make_pipeline(FunctionTransformer(minmax_scale), LogisticRegression()),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_models_of_all_three_libraries_answer_the_same(load: Any, model: Any, protocol: int) -> None:
    model.fit(X, Y)
    again = load(pickle.dumps(model, protocol))
    check_contents(again, Trust())
    ask = "predict_proba" if hasattr(model, "predict_proba") else "transform"
    np.testing.assert_array_equal(getattr(again, ask)(X), getattr(model, ask)(X))


def test_a_vectorizer_may_split_by_a_method_of_text(load: Any) -> None:
    texts = ["A b c", "b C d"] * 5
    model = CountVectorizer(tokenizer=str.split, preprocessor=str.upper, token_pattern=None).fit(texts)
    again = load(model)
    check_contents(again, Trust())
    np.testing.assert_array_equal(again.transform(texts).toarray(), model.transform(texts).toarray())


@pytest.mark.parametrize("dtype", ["str", "object"])
def test_columns_named_by_an_index_of_pandas_are_read(load: Any, dtype: str) -> None:
    numbers = pd.Index(["a", "b"], dtype=dtype)
    front = ColumnTransformer([("numbers", StandardScaler(), numbers), ("words", OneHotEncoder(), ["c"])])
    model = make_pipeline(front, LogisticRegression()).fit(FRAME, Y)
    again = load(model)
    check_contents(again, Trust())
    np.testing.assert_array_equal(again.predict_proba(FRAME), model.predict_proba(FRAME))


def test_categories_of_pandas_are_read(load: Any) -> None:
    rows = FRAME.astype({"c": "category"})
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(rows, Y)
    again = load(model)
    check_contents(again, Trust())
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.arange(6.0).reshape(2, 3).T,
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.array(["a", None, 1.5], dtype=object),
    np.array(["ab", "c"]),
    np.array([b"ab", b"c"]),
    np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]"),
    np.array([3], dtype="timedelta64[3D]"),
    np.array([True, False]),
    np.zeros(2, dtype=[("a", "f8"), ("b", "i4", (2,))]),
    np.zeros(2, dtype=[("a", "f8"), ("b", "O")]),
    np.zeros(2, dtype=np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    np.zeros(0),
    np.float32(1.5),
    np.str_("text"),
    np.datetime64("2020-01-01"),
    np.ma.array([1, 2], mask=[0, 1]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_read_as_python_reads_them(load: Any, array: Any, protocol: int) -> None:
    content = pickle.dumps(array, protocol)
    again, expected = load(content), pickle.loads(content)  # our own
    assert (again.dtype, again.shape, repr(again)) == (expected.dtype, expected.shape, repr(expected))


# What follows are attacks. Each would do something if the pickle were read by Python.


def called(function: Any, *arguments: Any, state: Any = None) -> Any:
    """An object in whose place a pickle calls a function."""

    class Called:
        def __reduce__(self) -> Any:
            return (function, arguments) if state is None else (function, arguments, state)

    return Called()


class Raw:
    """A pickle, opcode by opcode."""

    def __init__(self) -> None:
        self.code = b"\x80\x04"

    def op(self, *codes: bytes) -> "Raw":
        self.code += b"".join(codes)
        return self

    def value(self, value: Any) -> "Raw":
        """Pushes a plain value."""
        return self.op(pickle.dumps(value, 3)[2:-1])

    def named(self, name: str) -> "Raw":
        """Pushes what a dotted name means."""
        module, _, attribute = name.rpartition(".")
        return self.op(f"c{module}\n{attribute}\n".encode())

    def end(self) -> bytes:
        return self.code + b"."


TOUCH = "open('pwned', 'w')"


@pytest.mark.parametrize(
    "attack",
    [
        called(os.system, "touch pwned"),
        called(eval, TOUCH),
        called(exec, TOUCH),
        called(open, "pwned", "w"),
        called(__import__, "os"),
        called(getattr, os, "system"),
        called(getattr, str, "format"),
        called(getattr, str, "__class__"),
        called(getattr, xgboost.Booster, "load_model"),
        called(operator.methodcaller, "save_model", "pwned"),
        called(operator.attrgetter, "__class__"),
        called(functools.partial, os.system, "touch pwned"),
        called(functools.partial, xgboost.Booster),
        called(functools.partial, LogisticRegression),
        called(functools.partial, functools.partial),
        called(functools.reduce, operator.add, [1]),
        called(map, len, [[1]]),
        called(type, "Own", (), {}),
        called(np.load, "pwned"),
        called(np.save, "pwned.npy", [1]),
        called(np.memmap, "pwned", np.uint8, "w+", 0, (10,)),
        called(np.frompyfunc, len, 1, 1),
        called(pd.read_csv, "pwned"),
        called(pd.eval, "1"),
        called(joblib.load, "pwned"),
        called(joblib.Memory, "pwned"),
        called(lightgbm.Booster, None, None, "pwned"),
        called(xgboost.Booster, None, (), "pwned"),
        called(xgboost.DMatrix, "pwned"),
        called(LogisticRegression),
        called(cosine_similarity, [[1.0]]),
        called(RBF(), [[1.0]]),
        called(collections.defaultdict, os.getcwd),
        called(collections.defaultdict, xgboost.Booster),
        called(bytearray, 10**15),
        called(np.random._pickle.__randomstate_ctor, "MT19937", os.system),
        called(np.random._pickle.__bit_generator_ctor, os.getcwd),
        called(np.random._pickle.__bit_generator_ctor, xgboost.Booster),
        called(np.dtype, called(eval, TOUCH)),
    ],
    ids=lambda attack: type(attack.__reduce__()[0]).__name__,
)
def test_nothing_is_called_but_constructors_that_are_listed(load: Any, attack: Any, untouched: Path) -> None:
    with pytest.raises(Refused):
        load(attack)
    hidden = LogisticRegression().fit(X, Y)
    hidden.coef_ = np.array([{"deep": attack}], dtype=object)
    with pytest.raises(Refused):
        load(hidden)
    assert not untouched.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "posix.system", "builtins.eval", "sklearn.pipeline.os", "sklearn.base.importlib"),
        *(
            "sklearn.utils._testing.check_call",
            "sklearn.datasets._openml.urlopen",
            "sklearn.utils.validation.check_memory",
        ),
        *(
            "numpy.load",
            "numpy.f2py.__main__.main",
            "numpy.testing._private.utils.runstring",
            "pandas.read_pickle",
        ),
        *("lightgbm.basic.Dataset", "xgboost.core.DMatrix", "xgboost.tracker.RabitTracker", "ctypes.CDLL"),
        *(
            "joblib.numpy_pickle.NumpyArrayWrapper",
            "pickle.loads",
            "codecs.encode",
            "importlib.import_module",
        ),
        *("scipy.stats._distn_infrastructure.rv_frozen", "logging.config.dictConfig", "types.CodeType"),
        *(
            "sklearn.linear_model.tests.test_base.pytest",
            "copyreg._reconstructor",
            "preprocessing.preprocess",
        ),
    ],
)
def test_what_is_not_listed_is_not_found(load: Any, name: str) -> None:
    with pytest.raises(Refused, match="it needs"):
        load(Raw().named(name).end())


def test_a_module_that_is_not_listed_is_not_even_imported(load: Any) -> None:
    for module in ("sklearn.conftest", "numpy.f2py.__main__", "this", "antigravity"):
        sys.modules.pop(module, None)
        with pytest.raises(Refused):
            load(Raw().named(f"{module}.main").end())
        assert module not in sys.modules


def test_a_name_with_dots_finds_no_attributes_of_what_is_listed(load: Any) -> None:
    content = Raw().value("sklearn.linear_model._logistic").value("LogisticRegression.fit").op(b"\x93").end()
    with pytest.raises(Refused, match="it needs"):
        load(content)


def test_an_imported_function_of_the_hook_is_not_the_hooks_own(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import preprocessing
    from serving.errors import ModelRefused

    monkeypatch.setattr(preprocessing, "read_csv", pd.read_csv, raising=False)
    trust = Trust(has_hook=True)
    read = load(Raw().named("preprocessing.read_csv").end(), trust)
    with pytest.raises(ModelRefused, match="which is not trusted"):
        check_contents(FunctionTransformer(read), trust)


LOGISTIC = "sklearn.linear_model._logistic.LogisticRegression"
MADE = Raw().named(LOGISTIC).op(b")\x81")


@pytest.mark.filterwarnings("ignore:Trying to unpickle")
@pytest.mark.parametrize(
    "content",
    [
        # A state for a class: its methods would be others for every model in the process.
        Raw().named(LOGISTIC).op(b"N").value({"predict": 1}).op(b"\x86b").end(),
        Raw().named(LOGISTIC).value({"predict": 1}).op(b"b").end(),
        Raw().named("sklearn.metrics.pairwise.cosine_similarity").value({"__wrapped__": 1}).op(b"b").end(),
        # Slots are set by setattr, which may be a property's.
        Raw().op(MADE.code[2:]).value((None, {"__class__": 1})).op(b"b").end(),
        # A second state, and one for what this file has not made.
        Raw().op(MADE.code[2:]).value({"a": 1}).op(b"b").value({"a": 2}).op(b"b").end(),
        Raw().named("numpy.log1p").value({}).op(b"b").end(),
        Raw().value("text").value({}).op(b"b").end(),
    ],
)
def test_a_state_is_given_once_and_only_to_what_the_file_has_made(load: Any, content: bytes) -> None:
    before = LogisticRegression.predict
    with pytest.raises(Exception, match=r".*") as error:
        load(content)
    assert isinstance(error.value, (Refused, TypeError, ValueError, AttributeError))
    assert LogisticRegression.predict is before


@pytest.mark.filterwarnings("ignore:Trying to unpickle")
@pytest.mark.parametrize(
    "fill",
    [b"\x8c\x01aa", b"(\x8c\x06pwned2e", b"\x8c\x01a\x8c\x01bs", b"(\x8c\x01a\x8c\x01bu", b"(\x8c\x01a\x90"],
)
def test_nothing_is_filled_but_lists_dicts_and_sets(load: Any, fill: bytes) -> None:
    """An estimator whose `extend`, `append` or `__setitem__` is a function would have it called."""
    state = {"extend": 1, "append": 1, "add": 1, "update": 1}
    content = Raw().op(MADE.code[2:]).value(state).op(b"b").op(fill).end()
    with pytest.raises(Refused, match="it fills"):
        load(content)


@pytest.mark.parametrize(
    "code",
    [
        b"ios\nsystem\n",  # INST
        b"(cos\nsystem\n\x8c\x05toucho",  # OBJ
        b"Pid\n",  # PERSID
        b"\x8c\x02idQ",  # BINPERSID
        b"\x82\x01",  # EXT1
        b"\x97",  # NEXT_BUFFER
        f"c{LOGISTIC.rpartition('.')[0]}\nLogisticRegression\n)}}".encode() + b"\x92",  # NEWOBJ_EX
    ],
)
def test_opcodes_that_no_model_needs_are_refused(load: Any, code: bytes) -> None:
    with pytest.raises((Refused, pickle.UnpicklingError)):
        load(b"\x80\x04" + code + b".")


FORGED = (3, "|", None, None, None, -1, -1, 63)  # the flags of objects, for numbers


@pytest.mark.parametrize(
    "dtype",
    [
        called(np.dtype, "f8", False, True, state=FORGED),
        called(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
        called(
            np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("f8"), 4)}, 8, 1, 16)
        ),
        called(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 27)),
        called(np.dtype, "O", False, True, state=(3, "|", None, None, None, -1, -1, 0)),
        called(np.dtype, "S4", False, True, state=(3, "|", None, None, None, 4000, 1, 0)),
        called(np.dtype, "f8", False, True, state=(3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0)),
    ],
)
def test_numbers_are_not_taken_for_addresses_of_objects(load: Any, dtype: Any) -> None:
    """With such a dtype the bytes of an array would be read as pointers."""
    address = struct.pack("Q", 0x4141414141414141)
    for content in (
        dtype,
        called(np._core.multiarray.scalar, dtype, address),
        called(np._core.numeric._frombuffer, address, dtype, (1,), "C"),
        called(
            np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, address)
        ),
    ):
        with pytest.raises((Refused, ValueError, TypeError)):
            load(content)


def test_an_array_takes_one_state_or_what_looks_at_its_memory_would_look_at_anothers(load: Any) -> None:
    array = pickle.dumps(np.arange(4), 3)[2:-1]
    state = pickle.dumps((1, (1,), np.dtype("i8"), False, b"12345678"), 3)[2:-1]
    with pytest.raises(Refused, match="sets it twice"):
        load(b"\x80\x04" + array + state + b"b.")


def test_a_dtype_that_is_in_use_does_not_change(load: Any) -> None:
    """An array of bytes whose dtype became one of numbers would end beyond its memory."""
    make = Raw().named("numpy.dtype").value(("u1", False, True)).op(b"R\x94")  # memo 0
    make.named("numpy._core.numeric._frombuffer").op(b"(").value(b"12").op(b"h\x00").value((2,)).value(
        "C"
    ).op(b"tR")
    make.op(b"h\x00").value((3, "<", None, None, None, -1, -1, 0)).op(b"b\x86")
    with pytest.raises(Refused):
        load(make.end())


@pytest.mark.parametrize(
    "attack",
    [
        called(np._core.multiarray._reconstruct, np.ndarray, (10**15,), b"b"),
        called(np._core.multiarray._reconstruct, np.memmap, (0,), b"b"),
        called(np._core.numeric._frombuffer, b"12", np.dtype("u1"), (10**15,), "C"),
        called(np._core.multiarray.scalar, np.dtype("f8"), b"1"),
        called(np.ma.core._mareconstruct, np.ma.MaskedArray, np.ndarray, (10**15,), "b"),
    ],
)
def test_arrays_are_as_large_as_their_bytes(load: Any, attack: Any) -> None:
    with pytest.raises((Refused, ValueError)):
        load(attack)


@pytest.mark.parametrize("code", [b"\x8e", b"\x8d", b"\x96"])  # BINBYTES8, BINUNICODE8, BYTEARRAY8
def test_a_length_that_the_file_does_not_have_takes_no_memory(load: Any, code: bytes) -> None:
    with pytest.raises((MemoryError, OverflowError, pickle.UnpicklingError, EOFError)):
        load(b"\x80\x05" + code + struct.pack("<Q", 2**62) + b"abc.")


@pytest.mark.parametrize(
    "trees", [(4, np.array([2, 2]), 1), (4, np.array([-5]), 1), (4, [2], 1), (4, np.array([2]), 10**9)]
)
def test_a_tree_has_classes_for_each_of_its_outputs(load: Any, trees: Any) -> None:
    from sklearn.tree._tree import Tree

    with pytest.raises(Refused, match="a tree"):
        load(called(Tree, *trees))


@pytest.mark.filterwarnings("ignore")
def test_a_distribution_of_scipy_runs_its_template_as_it_is_read(load: Any, untouched: Path) -> None:
    """Why its classes are not listed: their state holds source code."""
    from scipy import stats

    uniform = stats.uniform(0, 1)
    uniform.dist._parse_arg_template = f"{TOUCH}\n{uniform.dist._parse_arg_template}"
    pickle.loads(pickle.dumps(uniform))  # what Python does
    assert untouched.exists()
    untouched.unlink()
    with pytest.raises(Refused, match=r"scipy\.stats"):
        load(pickle.dumps(uniform))
    assert not untouched.exists()


def test_code_that_cloudpickle_wrote_down_is_not_run(load: Any, untouched: Path) -> None:
    with pytest.raises(Refused, match="it needs cloudpickle"):
        load(FunctionTransformer(lambda rows: open("pwned", "w")))  # noqa: SIM115, PTH123
    assert not untouched.exists()


def test_joblibs_own_format_whose_arrays_are_pickles_again_is_refused(load: Any) -> None:
    stream = io.BytesIO()
    joblib.dump({"a": np.array([{"b": 1}], dtype=object)}, stream)
    with pytest.raises(Refused, match="NumpyArrayWrapper"):
        load(stream.getvalue())


def test_a_method_and_a_class_cannot_be_values(load: Any) -> None:
    from serving.errors import ModelRefused

    with pytest.raises(Refused):
        load(CountVectorizer(preprocessor=CountVectorizer(input="filename").decode))
    model = load(CountVectorizer(preprocessor=xgboost.Booster))
    with pytest.raises(ModelRefused, match=r"holds the class xgboost\.core\.Booster"):
        check_contents(model, Trust())


def test_the_names_are_read_without_making_anything(tmp_path: Path, untouched: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"a": [called(os.system, "touch pwned"), LogisticRegression()]}))
    assert {"posix.system", LOGISTIC} <= set(names_in(file))
    assert not untouched.exists()
