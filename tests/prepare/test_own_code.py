"""Models that bring code of their own (`code_paths`): it is not imported, unless the setting says so."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from scripts.checking.trial import trial
from serving.errors import ModelRefused
from serving.model.hook import DIGEST_KEY, PREPROCESSING_FILE
from serving.model.prepared import open_prepared
from serving.model.schema import Inputs, parse_schema
from serving.prepare.build import prepare
from serving.prepare.checks.trust import check_admission
from serving.prepare.files import check_files, load
from serving.prepare.registry.client import resolve
from serving.runtime.native import load_native
from serving.runtime.trusted import Trust
from serving.settings import Settings
from tests.support.environment import tracking
from tests.support.logged import Logged, log_sklearn
from tests.support.models import register

STEP = """
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

class Times(RegressorMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = 1
        return self

    def predict(self, X):
        return np.asarray(X)[:, 0] * {factor}
"""

HOOK = """
def preprocess(rows):
    return rows * 2
"""

ROWS = np.array([[1.0], [2.0]])
SCHEMA = parse_schema('[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 1]}}]')
TYPE = "own_steps.Times"
OWN = Trust(frozenset({TYPE}))
BOTH_FORMATS = pytest.mark.parametrize("serialization_format", ["skops", "cloudpickle"])


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """Forgets what a test imported."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in ("own_steps", "preprocessing"):
        sys.modules.pop(name, None)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that a model's own code makes when it is imported."""
    return tmp_path / "imported"


def save(folder: Path, name: str, source: str, serialization_format: str, marker: Path | None = None) -> Path:
    """Saves a model with a module of its own, as training elsewhere would; importing the copy makes the marker."""
    code = folder / "training" / f"{name}.py"
    code.parent.mkdir(parents=True)
    code.write_text(source)
    sys.modules.pop(name, None)
    sys.path.insert(0, str(code.parent))
    try:
        module = __import__(name)
        mlflow.sklearn.save_model(
            module.Times().fit(ROWS) if name == "own_steps" else fitted(module.preprocess),
            folder / "mlflow",
            code_paths=[str(code)],
            signature=infer_signature(ROWS, ROWS[:, 0]),
            pip_requirements=["scikit-learn"],
            serialization_format=serialization_format,
            skops_trusted_types=[TYPE, "preprocessing.preprocess"],
        )
    finally:
        sys.path.remove(str(code.parent))
        sys.modules.pop(name, None)
    if marker is not None:
        with (folder / "mlflow" / "code" / code.name).open("a") as copy:
            copy.write(f"\nopen({str(marker)!r}, 'w').close()\n")
    return folder / "mlflow"


def fitted(function: Any) -> Any:
    rows = pd.DataFrame(ROWS, columns=["a"])
    return make_pipeline(FunctionTransformer(function), LinearRegression()).fit(rows, rows["a"])


def mlmodel_of(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "MLmodel").read_text()))


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(ModelRefused) as error:
        check_files(folder, mlmodel_of(folder), Settings(**settings))
    return str(error.value)


def ask(runtime: Any) -> float:
    return float(runtime.predict(Inputs((np.array([[1.0]]),), 1), {}).values[0])


@BOTH_FORMATS
def test_each_version_runs_its_own_code(tmp_path: Path, serialization_format: str) -> None:
    folders = [
        save(tmp_path / str(factor), "own_steps", STEP.format(factor=factor), serialization_format)
        for factor in (2, 200)
    ]
    path = list(sys.path)
    first = load_native(folders[0], SCHEMA, None)
    second = load_native(folders[1], SCHEMA, None)
    again = load_native(folders[0], SCHEMA, None)
    assert [ask(first), ask(second), ask(again)] == [2, 200, 2]
    assert len(sys.path) <= len(path) + 1, "every load makes the path longer"


@BOTH_FORMATS
def test_a_trusted_type_does_not_import_the_models_own_module(
    tmp_path: Path, marker: Path, serialization_format: str
) -> None:
    folder = save(tmp_path, "own_steps", STEP.format(factor=2), serialization_format, marker)

    said = refusal(folder, trusted_types=TYPE)
    with pytest.raises(Exception, match=r"own_steps"):  # a worker, if the gate were open
        load_native(folder, SCHEMA, OWN)

    assert not marker.exists()
    assert "needs own_steps.Times, which is not installed with the service" in said
    assert "SERVING_ALLOW_PICKLE=true" in said

    allowed = Settings(trusted_types=TYPE, allow_pickle=True)
    files = check_files(folder, mlmodel_of(folder), allowed)
    assert "own_steps.Times" in str(files.writers_code)
    assert ask(load(folder, SCHEMA, files, allowed)[0]) == 2
    assert marker.exists()


@BOTH_FORMATS
def test_of_two_modules_of_a_name_the_installed_one_counts(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, serialization_format: str
) -> None:
    folder = save(tmp_path, "own_steps", STEP.format(factor=2), serialization_format, marker)
    installed = tmp_path / "installed" / "own_steps.py"
    installed.parent.mkdir()
    installed.write_text(STEP.format(factor=3))
    monkeypatch.syspath_prepend(installed.parent)
    settings = Settings(trusted_types=TYPE)

    files = check_files(folder, mlmodel_of(folder), settings)

    assert (files.writers_code, files.own_types) == (None, [TYPE])
    assert ask(load(folder, SCHEMA, files, settings)[0]) == 3
    assert not marker.exists()


def test_a_module_that_is_nowhere_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, "own_steps", STEP.format(factor=2), "skops")
    (folder / "code" / "own_steps.py").unlink()

    for allow_pickle in (False, True):
        said = refusal(folder, trusted_types=TYPE, allow_pickle=allow_pickle)
        assert said == f"it needs {TYPE}, which is not installed with the service; install its module there"


@BOTH_FORMATS
def test_another_preprocessing_is_run_only_where_code_is_allowed(
    tmp_path: Path, marker: Path, serialization_format: str
) -> None:
    folder = save(tmp_path, "preprocessing", HOOK, serialization_format, marker)

    assert "SERVING_PREPROCESSING_MISMATCH=warn" in refusal(folder, allow_pickle=True)
    said = refusal(folder, preprocessing_mismatch="warn")
    with pytest.raises(ModelRefused, match=r"another preprocessing\.py"):  # a worker, if the gate were open
        load_native(folder, SCHEMA, Trust(has_hook=True))

    assert not marker.exists()
    assert "trained with another preprocessing.py" in said
    assert "SERVING_ALLOW_PICKLE=true" in said

    allowed = Settings(preprocessing_mismatch="warn", allow_pickle=True)
    files = check_files(folder, mlmodel_of(folder), allowed)
    assert "another preprocessing.py" in str(files.writers_code)
    runtime, _ = load(folder, SCHEMA, files, allowed)
    assert ask(runtime) == pytest.approx(1)
    assert runtime.model[0].func.__globals__["__file__"] == str(folder / "code" / "preprocessing.py")
    assert marker.exists()


@BOTH_FORMATS
def test_of_the_same_preprocessing_the_services_copy_is_run(
    tmp_path: Path, serialization_format: str
) -> None:
    folder = save(tmp_path, "preprocessing", PREPROCESSING_FILE.read_text(), serialization_format)

    files = check_files(folder, mlmodel_of(folder), Settings())
    runtime, _ = load(folder, SCHEMA, files, Settings())

    assert files.writers_code is None
    assert runtime.model[0].func.__globals__["__file__"] == str(PREPROCESSING_FILE)


def test_a_model_without_its_preprocessing_gets_that_of_the_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path, "preprocessing", PREPROCESSING_FILE.read_text(), "skops")
    (folder / "code" / "preprocessing.py").unlink()
    mlmodel = mlmodel_of(folder) | {"metadata": {DIGEST_KEY: "0" * 64}}
    settings = Settings(preprocessing_mismatch="warn")

    files = check_files(folder, mlmodel, settings)

    assert files.writers_code is None
    assert "using the service's" in caplog.text
    runtime, _ = load(folder, SCHEMA, files, settings)
    assert runtime.model[0].func.__globals__["__file__"] == str(PREPROCESSING_FILE)


def test_what_was_prepared_where_code_is_allowed_is_not_run_elsewhere(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services and scripts with other settings share a model store."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    rows = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    model = LinearRegression().fit(rows, rows["a"])
    signature = infer_signature(rows, rows["a"])
    save(tmp_path / "own", "own_steps", STEP.format(factor=2), "cloudpickle", marker)
    sys.path.insert(0, str(tmp_path / "own" / "mlflow" / "code"))
    module = __import__("own_steps")
    registry = Logged(tmp_path)
    log = log_sklearn(
        module.Times().fit(rows),
        signature=signature,
        input_example=rows,
        code_paths=[str(tmp_path / "own" / "mlflow" / "code" / "own_steps.py")],
    )
    strict = Settings(MLFLOW_TRACKING_URI=registry.uri, model_name="model", trusted_types=TYPE)
    lax = strict.model_copy(update={"allow_pickle": True})
    with tracking(registry.uri):
        register("model", log)
        sys.path.remove(str(tmp_path / "own" / "mlflow" / "code"))
        sys.modules.pop("own_steps")
        first = resolve(lax).champion
        tag = prepare(first, lax).tag
        marker.unlink()

        with pytest.raises(ModelRefused, match=TYPE):
            check_admission(open_prepared(tag).manifest, strict)
        with pytest.raises(ModelRefused, match=TYPE):
            prepare(first, strict)
        with trial(strict) as attempt, pytest.raises(ModelRefused, match=TYPE):
            attempt.find_or_prepare(first)
        register("model", log_sklearn(model, signature=signature, input_example=rows))
        second = prepare(resolve(strict).champion, strict, champion=tag)

    assert second.manifest.writers_code is None
    assert not marker.exists()
