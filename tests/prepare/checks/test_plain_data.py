"""`serving.prepare.checks.plain_data`: whether a model's files are plain data, or code of their writer's."""

import io as streams
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io

from serving.errors import ModelRefused
from serving.prepare.checks.plain_data import find_code, needed_types
from serving.prepare.files import check_files
from serving.runtime.native import ObjectFile
from serving.settings import Settings

X = [[float(n), float(n % 7)] for n in range(40)]
Y = [n % 2 for n in range(40)]

PYFUNC = {"python_function": {"loader_module": "mlflow.sklearn"}}
SKOPS = {"sklearn": {"serialization_format": "skops", "pickled_model": "model.skops"}} | PYFUNC
PICKLE = {"sklearn": {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"}} | PYFUNC
BOOSTER = {"xgboost": {"model_class": "xgboost.core.Booster", "data": "model.json"}} | PYFUNC


@pytest.mark.parametrize(
    ("flavors", "part"),
    [
        ({"python_function": {"loader_module": "mlflow.pyfunc.model", "python_model": "m.pkl"}}, "pyfunc"),
        ({"python_function": {"loader_module": "mlflow.sklearn"}}, "pyfunc"),
        ({"python_function": {"loader_module": "loader"}}, "pyfunc"),
        ({"langchain": {"model_code_path": "m.py"}} | PYFUNC, "pyfunc"),
        ({"xgboost": {"model_class": "evil.M", "data": "model.json"}} | PYFUNC, "evil.M"),
        ({"xgboost": {"code": "code"}} | PYFUNC, "has its own code"),
        ({"statsmodels": {}} | PYFUNC, "the flavor statsmodels"),
    ],
)
def test_flavors_that_may_run_their_writers_code_are_found(
    tmp_path: Path, flavors: dict[str, Any], part: str
):
    assert part in str(find_code(tmp_path, flavors))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_found_whatever_its_name(tmp_path: Path, protocol: int):
    (tmp_path / "model.json").touch()
    (tmp_path / "notes").write_bytes(pickle.dumps({"a": 1}, protocol))

    assert "pickle among its files" in str(find_code(tmp_path, BOOSTER))


def test_a_compressed_pickle_is_found_by_its_name(tmp_path: Path):
    (tmp_path / "model.skops").touch()
    joblib.dump({"a": 1}, tmp_path / "model.joblib", compress=3)

    assert "pickle among its files" in str(find_code(tmp_path, SKOPS))


@pytest.mark.parametrize("flavors", [SKOPS, BOOSTER])
def test_plain_data_is_no_pickle(tmp_path: Path, flavors: dict[str, Any]):
    (tmp_path / "model.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "empty").touch()
    io.dump(LogisticRegression().fit(X, Y), tmp_path / "model.skops")

    assert find_code(tmp_path, flavors) is None


@pytest.mark.parametrize("name", ["/etc/hostname", "../other.json", "missing.json", None])
@pytest.mark.parametrize("flavor", ["sklearn", "xgboost", "lightgbm"])
def test_a_file_that_is_not_one_of_the_models_is_refused(tmp_path: Path, flavor: str, name: str | None):
    (tmp_path / "other.json").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ModelRefused, match="not among its files"):
        find_code(folder, {flavor: {"pickled_model": name, "data": name}} | PYFUNC)


def test_of_two_flavors_the_one_that_is_loaded_is_checked(tmp_path: Path):
    (tmp_path / "model.txt").touch()
    with pytest.raises(ModelRefused, match="not among its files"):
        find_code(tmp_path, {"xgboost": {}, "lightgbm": {"data": "model.txt"}} | PYFUNC)


def refusal(folder: Path, model: Any, **settings: Any) -> str:
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(model))
    with pytest.raises(ModelRefused) as error:
        check_files(folder, {"flavors": PICKLE}, Settings(**settings))
    return str(error.value)


class Own(LogisticRegression):
    """A class of the writer's own."""


def test_a_pickle_of_the_libraries_is_plain_data_and_nothing_is_said_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "model.pkl").write_bytes(cloudpickle.dumps(LogisticRegression().fit(X, Y)))
    for settings in (Settings(), Settings(allow_pickle=True)):
        assert check_files(tmp_path, {"flavors": PICKLE}, settings).writers_code is None
    assert "runs code" not in caplog.text


def test_a_pickle_of_own_types_says_which_and_is_read_once_they_are_trusted(tmp_path: Path):
    name = f"{__name__}.Own"
    reason = refusal(tmp_path, Own().fit(X, Y))
    assert f"SERVING_TRUSTED_TYPES={name}" in reason
    assert "SERVING_ALLOW_PICKLE=true" in reason
    files = check_files(tmp_path, {"flavors": PICKLE}, Settings(trusted_types=name))
    assert (files.writers_code, files.own_types) == (None, [name])


def test_a_pickle_with_code_inside_says_where_that_comes_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model = make_pipeline(FunctionTransformer(lambda rows: rows), LogisticRegression()).fit(X, Y)
    assert "defined in the training code" in refusal(tmp_path, model)
    check_files(tmp_path, {"flavors": PICKLE}, Settings(allow_pickle=True))
    assert "runs its author's code" in caplog.text


def test_a_search_over_distributions_is_told_to_log_its_best_estimator(tmp_path: Path):
    from scipy import stats

    search = RandomizedSearchCV(LogisticRegression(), {"C": stats.uniform(0.1, 1)}, n_iter=2, cv=2)
    assert "best_estimator_" in refusal(tmp_path, search.fit(X, Y))


def test_a_damaged_file_is_refused_without_showing_what_is_in_it(tmp_path: Path):
    for is_skops in (True, False):
        (tmp_path / "model").write_bytes(b"\x80\x04secret")
        with pytest.raises(ModelRefused, match="damaged") as error:
            needed_types(ObjectFile(tmp_path / "model", is_skops))
        assert "secret" not in str(error.value)


def skops_file(folder: Path, model: Any, **changed: Any) -> ObjectFile:
    """A skops file in which the node of a Booster says something else."""
    with zipfile.ZipFile(streams.BytesIO(io.dumps(model))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files.pop("schema.json"))
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("__class__") == "Booster":
                node |= changed
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    with zipfile.ZipFile(folder / "model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
        for name, content in files.items():
            archive.writestr(name, content)
    return ObjectFile(folder / "model.skops", is_skops=True)


def test_a_skops_file_may_not_call_what_opens_files(tmp_path: Path):
    import lightgbm

    model = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(X, Y)
    assert "lightgbm.basic.Booster" in needed_types(skops_file(tmp_path, model))
    with pytest.raises(ModelRefused, match=r"calls lightgbm\.basic\.Booster"):
        needed_types(skops_file(tmp_path, model, __loader__="ConstructorFromReduceNode"))


def test_a_skops_file_may_not_hold_methods(tmp_path: Path):
    reader = CountVectorizer(input="filename").decode
    (tmp_path / "model.skops").write_bytes(io.dumps(CountVectorizer(preprocessor=reader)))
    with pytest.raises(ModelRefused, match="holds a method of sklearn"):
        needed_types(ObjectFile(tmp_path / "model.skops", is_skops=True))
