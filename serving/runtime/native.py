"""The native runtime: the model in the library that trained it, for every flavor.

scikit-learn, XGBoost and LightGBM models are called directly, because `mlflow.pyfunc` offers no
probabilities; every other flavor is called through `mlflow.pyfunc`.
"""

import contextlib
import importlib
import importlib.util
import itertools
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import joblib  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from serving.errors import ModelRefused
from serving.model.hook import PREPROCESSING_FILE, find_mismatch, preprocessing_digest
from serving.model.schema import (
    DTYPES,
    MAY_BE_MISSING,
    NONE,
    Column,
    Form,
    Inputs,
    Kind,
    Schema,
    join,
    take,
)
from serving.runtime import Container, Description, Output, WrongRowCount, count_output
from serving.runtime.categories import Categories, category_codes, lightgbm_categories, xgboost_categories
from serving.runtime.compiled.links import probability_output
from serving.runtime.compiled.nodes import type_name
from serving.runtime.pickles import load_pickle
from serving.runtime.trusted import Trust

TEXT = pd.StringDtype("python", na_value=np.nan)
"""pandas' type for text read from a file, `str`: a missing value is NaN, not None, which scikit-learn's encoders would
take for a different category. Stored as Python objects, to which scikit-learn converts it anyway, and not in Arrow's
memory: a frame of few rows is created and read in a fraction of the time."""

Frame = pd.DataFrame | npt.NDArray[Any] | dict[str, npt.NDArray[Any]]


class _Adapter(Protocol):
    """One way of calling a model."""

    model: Any
    description: Description

    def predict(self, frame: Frame, params: dict[str, Any]) -> Output: ...


class NativeRuntime:
    """A model in its own library; see `serving.runtime.Runtime`."""

    def __init__(self, adapter: _Adapter, schema: Schema, *, is_per_row: bool = True) -> None:
        """Takes an adapter.

        Args:
            adapter: calls the model.
            schema: its inputs.
            is_per_row: whether it must return one result per row.
        """
        self._adapter = adapter
        self._schema = schema
        self._recodings = _recodings(adapter.model, schema)
        self._is_per_row = is_per_row
        self._takes_texts = _may_take_texts(adapter, schema)
        self.description = adapter.description

    @property
    def model(self) -> Any:
        """The fitted model itself; None if only `mlflow.pyfunc` can call it."""
        return self._adapter.model

    @property
    def takes_texts(self) -> bool:
        """Whether it is called with a series of texts instead of a frame; known once it has predicted."""
        return bool(self._takes_texts)

    def with_schema(self, schema: Schema) -> "NativeRuntime":
        """The same model with inputs of another schema."""
        return NativeRuntime(self._adapter, schema, is_per_row=self._is_per_row)

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:
        """Returns the model's output for the rows; raises whatever the model raises.

        Raises:
            WrongRowCount: it must return one result per row, and does not.
        """
        if self._takes_texts is None:
            self._takes_texts = not self._takes_frames(inputs)
        output = self.predict_frame(self.frame_of(inputs), params)
        n_results = count_output(output)
        if self._is_per_row and n_results != inputs.n_rows:
            raise WrongRowCount(n_results, inputs.n_rows)
        return output

    def predict_frame(self, frame: Any, params: dict[str, Any]) -> Output:
        """The same for rows in the model's own form."""
        with asking():
            return self._adapter.predict(frame, params)

    def frame_of(self, inputs: Inputs) -> Any:
        """Returns the model's argument: see `inputs_to_frame` and `as_taken`."""
        return self.as_taken(inputs_to_frame(inputs, self._schema, self._recodings))

    def as_taken(self, frame: Any) -> Any:
        """Returns a series instead of a frame if the model takes texts."""
        return frame.iloc[:, 0] if self._takes_texts else frame

    def _takes_frames(self, inputs: Inputs) -> bool:
        """Whether a model of one text column was fitted on a frame, or cannot predict two texts.

        One that was fitted on texts may accept a frame, too: a vectorizer takes the column's name for the only text, and
        wrappers return its answer for all rows.
        """
        if hasattr(self.model, "feature_names_in_"):
            return True
        row = take(inputs, 0, 1)
        frame: Any = inputs_to_frame(join([row, row]), self._schema, self._recodings)
        for rows in (frame.iloc[:, 0], frame):
            try:
                if count_output(self.predict_frame(rows, {})) == len(rows):
                    return rows is frame
            except Exception:  # noqa: BLE001, S112  # `predict` reports the error
                continue
        return True


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Context for calling a library in a server: no warnings, and threads instead of joblib's processes (`n_jobs`)."""
    with warnings.catch_warnings(), joblib.parallel_config(backend="threading"):
        # Callers do not see warnings, which may quote their values.
        warnings.simplefilter("ignore")
        yield


def _may_take_texts(adapter: _Adapter, schema: Schema) -> bool | None:
    """Whether a model is called with a series of texts, as text vectorizers are fitted; None if unknown.

    MLflow gives a list or an unnamed series a signature of one unnamed text column; a named series gets the same
    signature as a frame.
    """
    if adapter.model is None or len(schema.columns) != 1 or schema.columns[0].type.kind is not Kind.STRING:
        return False
    return True if schema.form is Form.BARE else None


def load_native(
    folder: Path, schema: Schema, trust: Trust | None, *, is_per_row: bool = True
) -> NativeRuntime:
    """Loads an MLflow model from a local folder.

    Args:
        folder: of its files.
        schema: its inputs.
        trust: the types that it may contain; None runs any code in its files, and nothing else does.
        is_per_row: whether it must return one result per row.

    Raises:
        ModelRefused: it cannot predict, or was trained with another `preprocessing.py` and must not run its own.
        Refused: it is a pickle with untrusted content.
        Exception: whatever the library raises while loading.
    """
    flavors = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    _forget_other_code()
    return NativeRuntime(_load_adapter(folder, flavors, schema, trust), schema, is_per_row=is_per_row)


def _forget_other_code() -> None:
    """Forgets modules imported from other models, so that the next one gets its own.

    Two versions may contain different code under the same name. Loaded models keep their classes and functions.
    """
    sys.modules.pop("preprocessing", None)
    sys.path[:] = [path for path in sys.path if not _is_model_code(path)]
    for name, module in list(sys.modules.items()):
        if _is_model_code(getattr(module, "__file__", None) or ""):
            del sys.modules[name]
    importlib.invalidate_caches()


def _is_model_code(path: str) -> bool:
    """Whether a path is in the code logged with a model: `…/mlflow/code`."""
    parts = Path(path).parts
    return any(pair == ("mlflow", "code") for pair in itertools.pairwise(parts))


def _load_adapter(folder: Path, flavors: dict[str, Any], schema: Schema, trust: Trust | None) -> _Adapter:
    path = str(folder)
    file = object_file(folder, flavors)
    if file is not None and (file.is_skops or trust is not None):
        return adapter_of(_load_object(folder, flavors, file, trust))
    if "sklearn" in flavors:
        import mlflow.sklearn

        return adapter_of(mlflow.sklearn.load_model(path))
    if "xgboost" in flavors:
        import mlflow.xgboost

        return adapter_of(mlflow.xgboost.load_model(path))
    if "lightgbm" in flavors:
        import mlflow.lightgbm

        return adapter_of(mlflow.lightgbm.load_model(path))
    if "python_function" in flavors:
        import mlflow.pyfunc

        return _Pyfunc(mlflow.pyfunc.load_model(path), schema)
    raise ModelRefused(
        f"the model has no flavor that can predict; it has {', '.join(flavors)}; log it with mlflow.sklearn, "
        "mlflow.xgboost, mlflow.lightgbm or mlflow.pyfunc"
    )


LIGHTGBM_BOOSTER = "lightgbm.basic.Booster"


class ObjectFile(NamedTuple):
    """A file with a serialized Python object."""

    path: Path
    is_skops: bool
    """Whether it is a skops file; else a pickle."""


def object_file(folder: Path, flavors: dict[str, Any]) -> ObjectFile | None:
    """Returns the file of a model saved as skops file or pickle; None for a library's own format.

    Source: mlflow/sklearn and mlflow/lightgbm, `_load_model`, also for the default format.

    Raises:
        ModelRefused: the named file is not one of the model's.
    """
    if "sklearn" in flavors:
        flavor = flavors["sklearn"] or {}
        name = flavor.get("pickled_model")
    elif "xgboost" not in flavors and "lightgbm" in flavors:
        flavor = flavors["lightgbm"] or {}
        if flavor.get("model_class", LIGHTGBM_BOOSTER) == LIGHTGBM_BOOSTER:
            return None
        name = flavor.get("data")
    else:
        return None
    return ObjectFile(member(folder, name), flavor.get("serialization_format") == "skops")


def _load_object(folder: Path, flavors: dict[str, Any], file: ObjectFile, trust: Trust | None) -> Any:
    """Loads a serialized object; its types were checked when it was prepared."""
    if trust is not None and trust.has_hook:
        own = own_hook(folder, flavors)
        mismatch = find_mismatch(preprocessing_digest(own)) if own else None
        if mismatch is not None:
            raise ModelRefused(f"it {mismatch}; put the same file beside the service")
        _import_hook(PREPROCESSING_FILE)
    if not file.is_skops:
        assert trust is not None
        return load_pickle(file.path, trust)
    from skops import io

    names = io.get_untrusted_types(file=file.path)
    code = code_folder(folder, flavors)
    if trust is None and code is not None:
        _import_hook(code / HOOK)
        if own_modules(code, names):
            # After all installed packages: a module of the model must not shadow another.
            sys.path.append(str(code))
    return io.load(file.path, trusted=names)


HOOK = "preprocessing.py"


def code_folder(folder: Path, flavors: dict[str, Any]) -> Path | None:
    """Returns the folder of the code logged with a model (`code_paths`), if there is any."""
    name = (flavors.get("sklearn") or flavors.get("lightgbm") or {}).get("code")
    code = (folder / str(name)).resolve()
    return code if name and code.is_dir() and code.is_relative_to(folder.resolve()) else None


def own_hook(folder: Path, flavors: dict[str, Any]) -> Path | None:
    """Returns the `preprocessing.py` logged with a model, if there is one."""
    code = code_folder(folder, flavors)
    return code / HOOK if code is not None and (code / HOOK).is_file() else None


def own_modules(code: Path, names: Iterable[str]) -> set[str]:
    """Returns the modules of these types that are among the code logged with a model, besides the hook."""
    modules = {name.partition(".")[0] for name in names} - {"preprocessing"}
    return {module for module in modules if (code / module).is_dir() or (code / f"{module}.py").is_file()}


def _import_hook(file: Path) -> None:
    """Imports a `preprocessing.py`, if it is there."""
    if not file.is_file():
        return
    spec = importlib.util.spec_from_file_location("preprocessing", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["preprocessing"] = module
    spec.loader.exec_module(module)


def member(folder: Path, name: Any) -> Path:
    """Returns a file that the MLmodel file names.

    Raises:
        ModelRefused: it is missing, or outside the model's folder.
    """
    file = (folder / str(name)).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise ModelRefused(
            "the model file that MLmodel names is not among its files; log the model again, or copy its artifacts whole"
        )
    return file


def adapter_of(model: Any) -> _Adapter:
    """Returns the adapter of a fitted scikit-learn, XGBoost or LightGBM model."""
    if type(model).__name__ == "Booster":
        return _XgboostBooster(model) if "xgboost" in type(model).__module__ else _LightgbmBooster(model)
    return _Estimator(model)


class Recoding:
    """Converts a column's cells to pandas' `category`, with the categories of the fit."""

    def __init__(self, categories: Categories, kind: str) -> None:
        self._codes = categories.codes(kind)
        values = None if categories.dtype.startswith("str") else categories.dtype
        self._dtype = pd.CategoricalDtype(pd.Index(categories.values, dtype=values))

    def __call__(self, cells: npt.NDArray[Any]) -> pd.Categorical:
        """Returns the categories of the cells; missing and unknown ones are missing."""
        return pd.Categorical.from_codes(category_codes(cells, self._codes), dtype=self._dtype)


def _recodings(model: Any, schema: Schema) -> dict[int, Recoding]:
    """The recodings of columns to the categories that a booster was fitted on, by position.

    Raises:
        ModelRefused: its file lacks the categories.
    """
    if any(column.type.kind is Kind.TENSOR for column in schema.columns):
        return {}  # an array contains the codes
    own = [_column_kind(column.type.kind) for column in schema.columns]
    for part, columns in _asked_with_the_rows(model, list(range(len(own)))):
        kinds = ["" if column is None else own[column] for column in columns]
        found = _booster_categories(part, kinds).items()
        reached = {columns[position]: categories for position, categories in found}
        if reached:
            return {c: Recoding(categories, own[c]) for c, categories in reached.items() if c is not None}
    return {}


def _column_kind(kind: Kind) -> str:
    return np.dtype(DTYPES.get(kind, object)).kind if kind in DTYPES or kind is Kind.STRING else ""


def _booster_categories(model: Any, kinds: list[str]) -> dict[int, Categories]:
    """The categories of a booster's columns by their positions; none of any other model."""
    library = type_name(model).partition(".")[0]
    try:
        if library == "lightgbm":
            return lightgbm_categories(getattr(model, "booster_", model), kinds)
        if library == "xgboost":
            return xgboost_categories(model.get_booster() if hasattr(model, "get_booster") else model, kinds)
    except AttributeError:
        pass  # not fitted: a copy of it was
    return {}


def _asked_with_the_rows(model: Any, columns: list[int | None]) -> Iterator[tuple[Any, list[int | None]]]:
    """Yields the model and its parts that are called with columns of its own rows, with these columns."""
    yield model, columns
    steps = [step for _, step in getattr(model, "steps", ()) if step not in (None, "passthrough")]
    for step in steps[:-1]:
        if type_name(step) != "sklearn.ColumnTransformer" or not hasattr(step, "output_indices_"):
            return
        columns = _passed_on(step, columns)
    parts = steps[-1:]
    parts += [
        getattr(model, name, None) for name in ("best_estimator_", "estimator_", "regressor_", "estimator")
    ]
    for name in ("estimators_", "calibrated_classifiers_"):
        found = getattr(model, name, None)
        parts += found if isinstance(found, list) else []
    for part in parts:
        if part is not None:
            yield from _asked_with_the_rows(part, columns)


def _passed_on(step: Any, columns: list[int | None]) -> list[int | None]:
    """The columns that a ColumnTransformer passes through, by position in its output."""
    out: list[int | None] = [None] * max(part.stop for part in step.output_indices_.values())
    for name, transformer, _ in step.transformers_:
        if transformer == "passthrough" or getattr(transformer, "func", transformer) is None:
            indices = step._transformer_to_input_indices[name]  # noqa: SLF001  # nothing public has positions
            out[step.output_indices_[name]] = [columns[index] for index in indices]
    return out


def inputs_to_frame(inputs: Inputs, schema: Schema, recodings: dict[int, Recoding] | None = None) -> Frame:
    """Returns the argument for a model of the signature.

    A DataFrame for columns (text as pandas' `str`, missing values as NaN, categories if there is a recoding), an array
    of shape `(n_rows, *shape)` for one tensor, a dict of arrays for several.
    """
    if any(column.type.kind is Kind.TENSOR for column in schema.columns):
        if schema.form is Form.BARE:
            tensor = inputs.columns[0]
            # A .npy body is not copied, but a model may modify its input.
            return tensor if tensor.flags.writeable else tensor.copy()
        return dict(zip(schema.labels, inputs.columns, strict=True))
    columns: list[Any] = [
        _to_pandas(values, column) for column, values in zip(schema.columns, inputs.columns, strict=True)
    ]
    for position, recode in (recodings or {}).items():
        columns[position] = recode(inputs.columns[position])
    frame = pd.DataFrame(dict(zip(schema.labels, columns, strict=True)), copy=False)
    if schema.form is not Form.RECORD:
        frame.columns = pd.RangeIndex(len(schema.columns))
    return frame


def _to_pandas(values: npt.NDArray[Any], column: Column) -> Any:
    if column.type.kind is Kind.STRING and column.missing is not None:
        return pd.array(values, dtype=TEXT)
    # pandas would convert objects that are all text or None to text, with NaN for None.
    if column.null == NONE or (column.null is not None and values.dtype == object):
        # As in the fit, even if nothing is missing: scikit-learn does not compare integers with categories of objects.
        return pd.Series(values, dtype=object)
    return values


def to_json_scalars(values: npt.NDArray[Any]) -> list[Any]:
    """Returns an array's elements as JSON values: numbers, booleans, text."""
    return [v if isinstance(v, (int, float, bool, str)) else str(v) for v in np.asarray(values).tolist()]


_PREDICTS_LIKELIEST = {
    f"sklearn.{name}"
    for name in (
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "BaggingClassifier",
    )
}
"""Classifiers whose `predict` is the argmax of `predict_proba`, so that one call is enough.

Source: sklearn/ensemble/_forest.py, _bagging.py and sklearn/tree/_classes.py, `predict`.
"""


class _Estimator:
    """Anything with scikit-learn's interface."""

    def __init__(self, model: Any) -> None:
        from sklearn.base import is_classifier, is_regressor

        if not hasattr(model, "predict"):
            raise ModelRefused(
                f"a {type(model).__name__} cannot predict; log the whole pipeline, with an estimator at its end"
            )
        self.model = model
        # The steps before the last run once for both labels and probabilities; as in `Pipeline.predict`, without
        # checks of the steps. Other kinds of pipelines (imbalanced-learn's skips its samplers) predict in their own
        # way.
        is_plain = type(model).__module__ == "sklearn.pipeline" and type(model).__name__ == "Pipeline"
        steps = [step for _, step in model.steps] if is_plain else [model]
        self._front = [step for step in steps[:-1] if step is not None and step != "passthrough"]
        self._last = steps[-1]
        classes = getattr(model, "classes_", None)
        # A multi-output classifier's `classes_` is a list with an array per output.
        single = isinstance(classes, np.ndarray) and classes.ndim == 1
        self._is_classifier = is_classifier(model)
        self._has_probabilities = self._is_classifier and single and hasattr(model, "predict_proba")
        task = "regression" if is_regressor(model) else "other"
        self.description = Description(
            "classification" if self._is_classifier else task,
            to_json_scalars(classes) if self._is_classifier and single and classes is not None else None,
            self._has_probabilities,
        )

    def predict(self, frame: Frame, params: dict[str, Any]) -> Output:  # noqa: ARG002  # only a pyfunc has any
        rows: Any = frame
        for step in self._front:
            rows = step.transform(rows)
        if self._has_probabilities and type_name(self._last) in _PREDICTS_LIKELIEST:
            probabilities = np.asarray(self._last.predict_proba(rows))
            return Output(self._last.classes_.take(probabilities.argmax(axis=1)), probabilities)
        predicted = np.atleast_1d(np.asarray(self._last.predict(rows)))
        if not self._is_classifier:
            return Output(values=predicted)
        if not self._has_probabilities:
            return Output(labels=predicted)
        # The model's own label: `predict` is not always the argmax of the probabilities (tuned thresholds, SVC, ties).
        return Output(labels=predicted, probabilities=np.asarray(self._last.predict_proba(rows)))


class _XgboostBooster:
    """An XGBoost model of the learning API."""

    def __init__(self, model: Any) -> None:
        import json

        learner = json.loads(model.save_config())["learner"]
        objective = learner["learner_train_param"]["objective"]
        n_classes = int(learner["learner_model_param"]["num_class"])
        self.model = model
        # binary:logitraw and multi:softmax return no probabilities: their output is passed on unchanged.
        # Source: XGBoost's parameter reference, "Learning Task Parameters".
        self._is_classifier = objective in ("binary:logistic", "multi:softprob")
        classes = list(range(max(n_classes, 2)))
        is_regression = objective.startswith(("reg:", "count:", "survival:"))
        self.description = (
            Description("classification", classes, True)
            if self._is_classifier
            else Description("regression" if is_regression else "other")
        )

    def predict(self, frame: Frame, params: dict[str, Any]) -> Output:  # noqa: ARG002  # only a pyfunc has any
        import xgboost

        raw = self.model.predict(xgboost.DMatrix(frame, enable_categorical=True))
        return probability_output(raw) if self._is_classifier else Output(values=raw)


class _LightgbmBooster:
    """A LightGBM model of the training API."""

    def __init__(self, model: Any) -> None:
        objective = str(model.dump_model(num_iteration=1).get("objective", "")).split(" ")[0]
        self.model = model
        # Source: LightGBM's parameter reference, "objective".
        self._is_classifier = objective in ("binary", "multiclass", "multiclassova")
        classes = list(range(max(int(model.num_model_per_iteration()), 2)))
        regression = (
            "regression",
            "regression_l1",
            "huber",
            "fair",
            "poisson",
            "quantile",
            "mape",
            "gamma",
            "tweedie",
        )
        self.description = (
            Description("classification", classes, True)
            if self._is_classifier
            else Description("regression" if objective in regression else "other")
        )

    def predict(self, frame: Frame, params: dict[str, Any]) -> Output:  # noqa: ARG002  # only a pyfunc has any
        raw = np.asarray(self.model.predict(frame))
        return probability_output(raw) if self._is_classifier else Output(values=raw)


class _Pyfunc:
    """Any flavor, through `mlflow.pyfunc`, with the parameters of the request."""

    model = None
    description = Description("other")

    def __init__(self, model: Any, schema: Schema) -> None:
        self._model = model
        if any(column.label != "" for column in schema.columns):
            # MLflow takes a label that is not text for a position, or cannot look it up; the rows are already checked.
            # Source: mlflow.types.Schema.input_names.
            model.metadata.signature.inputs = None
        pairs = zip(schema.labels, schema.columns, strict=True)
        self._not_nullable = [
            label for label, column in pairs if not column.required and column.type.kind not in MAY_BE_MISSING
        ]

    def predict(self, frame: Frame, params: dict[str, Any]) -> Output:
        if isinstance(frame, pd.DataFrame) and self._not_nullable:
            # An empty column is omitted, as a caller of pyfunc would: MLflow's own check accepts that, but not a
            # column of nulls.
            empty = [name for name in self._not_nullable if name in frame and frame[name].isna().all()]
            frame = frame.drop(columns=empty)
        return _output_of(self._model.predict(frame, params=params or None))


def _output_of(result: Any) -> Output:
    """A pyfunc's result as one array: arrays stay arrays, a wide DataFrame becomes records."""
    if isinstance(result, pd.Series):
        result = result.to_frame()
    if isinstance(result, pd.DataFrame):
        if result.shape[1] != 1:
            return Output(values=_objects(result.to_dict("records")))
        column = result.iloc[:, 0].to_numpy()
        return Output(values=column, container=Container.COLUMN, name=str(result.columns[0]))
    if isinstance(result, np.ndarray) and result.ndim:
        return Output(values=result)
    if isinstance(result, (list, tuple)):
        return Output(values=_objects(list(result)))
    if isinstance(result, dict):
        named = {key: np.asarray(value) for key, value in result.items()}
        lengths = {len(value) if value.ndim else 0 for value in named.values()}
        if len(lengths) == 1 and 0 not in lengths:
            rows = [{k: v[i].tolist() for k, v in named.items()} for i in range(*lengths)]
            return Output(values=_objects(rows), container=Container.COLUMNS)
    # Anything else is a single result.
    single = _objects([result.item() if isinstance(result, np.ndarray) else result])
    return Output(values=single, container=Container.SINGLE)


def _objects(items: list[Any]) -> npt.NDArray[Any]:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out
