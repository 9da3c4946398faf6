"""`serving.prepare.checks.trust`: what a model's files may do to the process that reads them."""

import json
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, SGDClassifier, TweedieRegressor
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, SplineTransformer
from sklearn.svm import SVC
from skops import io

from serving.errors import ModelRefused
from serving.model.hook import preprocessing_digest
from serving.prepare.checks.trust import (
    check_admission,
    check_input,
    check_types,
    find_pickle,
    untrusted_types,
)
from serving.prepare.files import check_files
from serving.settings import Settings
from tests.support.manifests import some_manifest

X = [[float(n), float(n % 7)] for n in range(40)]
Y = [n % 2 for n in range(40)]


def untrusted(*names: str, own: str = "", hook: bool = False) -> list[str]:
    return untrusted_types(list(names), frozenset(filter(None, [own])), has_our_preprocessing=hook)


@pytest.mark.parametrize(
    "model",
    [
        GradientBoostingClassifier(n_estimators=2),
        HistGradientBoostingClassifier(max_iter=2),
        IsolationForest(n_estimators=2),
        RandomForestRegressor(n_estimators=2),
        SGDClassifier(),
        TweedieRegressor(),
        KNeighborsClassifier(algorithm="kd_tree"),
        MLPClassifier((3,), max_iter=5),
        SVC(probability=False),
        make_pipeline(SplineTransformer(), QuantileTransformer(n_quantiles=4), LogisticRegression()),
        make_pipeline(SelectKBest(f_classif, k=1), LogisticRegression()),
        make_pipeline(FunctionTransformer(cosine_similarity), LogisticRegression()),
    ],
    ids=lambda model: type(model[-1] if hasattr(model, "steps") else model).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_models_of_scikit_learn_itself_are_trusted(model: Any):
    names = io.get_untrusted_types(data=io.dumps(model.fit(X, Y)))

    assert untrusted(*names) == []


def test_an_isotonic_regression_with_its_interpolation_is_trusted():
    names = io.get_untrusted_types(data=io.dumps(IsotonicRegression().fit(range(40), Y)))

    assert untrusted(*names) == []


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "subprocess.Popen",
        "builtins.eval",
        "numpy.load",
        "numpy.memmap",
        "pandas.io.pytables.HDFStore",
        "operator.methodcaller",
        "my_company.Transformer",
        "preprocessing.preprocess",  # without a hook that was compared
        "sklearn.datasets._openml.fetch_openml",  # it fetches
        "sklearn.datasets._openml.Request",  # found in scikit-learn, and of another library
        "sklearn.utils._testing.check_call",
        "sklearn.nowhere.Nothing",
        "sklearn.pipeline.os.system",
        "_loss.nothing",
    ],
)
def test_what_may_do_something_is_not_trusted(name: str):
    assert untrusted(name) == [name]


def test_own_types_are_trusted_by_name_only():
    assert untrusted("a.B", own="a.B") == []
    assert untrusted("a.B", "a.C", own="a.B") == ["a.C"]


def test_of_the_hook_its_own_functions_are_trusted_and_nothing_below():
    assert untrusted("preprocessing.preprocess", hook=True) == []
    assert untrusted("preprocessing.os.system", hook=True) == ["preprocessing.os.system"]


def test_untrusted_types_are_named_in_the_refusal_as_the_setting_wants_them():
    with pytest.raises(ModelRefused, match=r"SERVING_TRUSTED_TYPES=a\.B,c\.D"):
        check_types(["a.B", "c.D"])
    check_types([])


PYFUNC = {"python_function": {"loader_module": "mlflow.sklearn"}}
SKOPS = {"sklearn": {"serialization_format": "skops"}} | PYFUNC
BOOSTER = {"xgboost": {"model_class": "xgboost.core.Booster", "data": "model.json"}} | PYFUNC


@pytest.mark.parametrize(
    ("flavors", "part"),
    [
        ({"sklearn": {"serialization_format": "cloudpickle"}} | PYFUNC, "is a pickle"),
        ({"sklearn": {"pickled_model": "model.dat"}} | PYFUNC, "is a pickle"),  # MLflow's default
        ({"python_function": {"loader_module": "mlflow.pyfunc.model", "python_model": "m.pkl"}}, "pyfunc"),
        ({"python_function": {"loader_module": "mlflow.sklearn"}}, "pyfunc"),
        ({"python_function": {"loader_module": "loader"}}, "pyfunc"),
        ({"langchain": {"model_code_path": "m.py"}} | PYFUNC, "pyfunc"),
        ({"xgboost": {"model_class": "evil.M", "data": "model.json"}} | PYFUNC, "evil.M"),
        ({"xgboost": {"code": "code"}} | PYFUNC, "code of its own"),
        ({"lightgbm": {"model_class": "lightgbm.sklearn.LGBMRegressor"}} | PYFUNC, "saved as a pickle"),
    ],
)
def test_flavors_that_may_run_their_writers_code_are_found(
    tmp_path: Path, flavors: dict[str, Any], part: str
):
    assert part in str(find_pickle(tmp_path, flavors))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_found_whatever_its_name(tmp_path: Path, protocol: int):
    (tmp_path / "model.json").write_bytes(pickle.dumps({"a": 1}, protocol))

    assert "pickle among its files" in str(find_pickle(tmp_path, BOOSTER))


def test_a_compressed_pickle_is_found_by_its_name(tmp_path: Path):
    joblib.dump({"a": 1}, tmp_path / "model.joblib", compress=3)

    assert "pickle among its files" in str(find_pickle(tmp_path, SKOPS))


@pytest.mark.parametrize("flavors", [SKOPS, BOOSTER])
def test_plain_data_is_no_pickle(tmp_path: Path, flavors: dict[str, Any]):
    (tmp_path / "model.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "empty").touch()
    io.dump(LogisticRegression().fit(X, Y), tmp_path / "model.skops")

    assert find_pickle(tmp_path, flavors) is None


@pytest.mark.parametrize("kind", ["filename", "file"])
def test_a_model_that_would_open_the_files_that_callers_name_is_refused(kind: str):
    check_input(make_pipeline(CountVectorizer(), LogisticRegression()))
    with pytest.raises(ModelRefused, match="CountVectorizer reads files"):
        check_input(make_pipeline(CountVectorizer(input=kind), LogisticRegression()))
    with pytest.raises(ModelRefused, match="CountVectorizer reads files"):
        check_input(CountVectorizer(input=kind))


def test_a_pickle_is_refused_unless_it_is_allowed_and_then_the_log_says_what_that_means(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "model.pkl").write_bytes(b"")
    mlmodel = {"flavors": {"sklearn": {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"}}}
    with pytest.raises(ModelRefused, match=r"it is a pickle.*SERVING_ALLOW_PICKLE=true"):
        check_files(tmp_path, mlmodel, Settings())
    check_files(tmp_path, mlmodel, Settings(allow_pickle=True))
    assert "runs code that its writer chose" in caplog.text


@pytest.mark.parametrize(("mismatch", "is_refused"), [("refuse", True), ("warn", False)])
def test_what_was_prepared_with_another_preprocessing_is_admitted_only_where_that_is_allowed(
    mismatch: str, is_refused: bool
):
    manifest = some_manifest(preprocessing_sha256="0" * 64)
    with pytest.raises(ModelRefused, match="with another preprocessing") if is_refused else nullcontext():
        check_admission(manifest, Settings(preprocessing_mismatch=mismatch))
    check_admission(some_manifest(preprocessing_sha256=preprocessing_digest()), Settings())
