"""`serving.prepare.checks.contents`: what a model that was loaded holds, wherever it is in it."""

import functools
import os
import subprocess
import time
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_files, load_svmlight_file
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_memory

from serving.errors import ModelRefused
from serving.prepare.checks.contents import check_contents
from serving.runtime.trusted import Trust

TEXTS = ["a good one", "a bad one", "good", "bad"] * 5
Y = [1, 0, 1, 0] * 5
X = np.array([[float(n), float(n % 7)] for n in range(20)])
READER = CountVectorizer(input="filename")


class Slotted:
    """A class without a `__dict__`."""

    __slots__ = ("part",)

    def __init__(self, part: Any) -> None:
        self.part = part


def searched(vectorizer: Any) -> Any:
    """A search whose parameters are harmless, and whose fitted part is not."""
    search = GridSearchCV(make_pipeline(CountVectorizer(), LogisticRegression()), {}, cv=2).fit(TEXTS, Y)
    search.best_estimator_.steps[0] = ("countvectorizer", vectorizer)
    return search


def holding(attribute: str, value: Any) -> Any:
    model = LogisticRegression().fit(X, Y)
    setattr(model, attribute, value)
    return model


def in_a_cycle(part: Any) -> Any:
    model = LogisticRegression()
    model.parts_ = [model, {"more": (model, part)}]
    return model


def in_a_tree(metric: Any) -> Any:
    return KNeighborsClassifier(metric=metric, algorithm="ball_tree").fit(X, Y)


STRUCTURE = np.zeros(1, dtype=[("a", "f8"), ("b", "O")])
STRUCTURE["b"][0] = READER


@pytest.mark.parametrize(
    "model",
    [
        READER,
        TfidfVectorizer(input="file"),
        HashingVectorizer(input="filename"),
        HashingVectorizer(input=np.str_("filename")),
        HashingVectorizer(input=np.array(["filename"])),
        make_pipeline(READER, LogisticRegression()),
        searched(READER),
        FeatureUnion([("a", CountVectorizer()), ("b", READER)]),
        ColumnTransformer([("a", READER, "text")]),
        ColumnTransformer([]).__class__([("a", make_pipeline(READER), "text")]),
        VotingClassifier([("a", make_pipeline(READER, LogisticRegression()))]),
        holding("parts_", np.array([None, READER], dtype=object)),
        holding("parts_", STRUCTURE),
        holding("parts_", {"deep": [({1, 2}, {"deeper": READER})]}),
        holding("parts_", Slotted(READER)),
        holding("parts_", pd.Index([READER], dtype=object)),
        holding("predict", functools.partial(cosine_similarity, READER)),
        in_a_cycle(READER),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_vectorizer_that_opens_files_is_found_wherever_it_is(model: Any):
    with pytest.raises(ModelRefused, match="reads files that callers name"):
        check_contents(model, Trust())


def booster() -> Any:
    return xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, Y), 1)


@pytest.mark.parametrize(
    "function",
    [
        *(pd.read_csv, pd.read_pickle, pd.eval, np.load, np.loadtxt, np.genfromtxt, np.fromfile, np.save),
        *(joblib.load, joblib.dump, load_files, load_svmlight_file, open, eval, exec, getattr, os.system),
        *(os.path.exists, subprocess.check_output, __import__),
        *(READER.decode, READER.build_analyzer(), booster().save_model, booster().load_model, "".join),
        *(np.add.reduce, np.array([1.0]).tofile, str.format, make_pipeline(StandardScaler()).fit_transform),
        *(
            xgboost.Booster,
            lightgbm.Booster,
            xgboost.DMatrix,
            np.memmap,
            subprocess.Popen,
            LogisticRegression,
        ),
        *(functools.partial(pd.read_csv, sep=","), functools.partial(xgboost.Booster, None, ())),
        *(functools.partial(functools.partial, np.load), lambda rows: rows, os, functools.reduce),
        *(np.vectorize(os.path.exists), np.frompyfunc(os.path.exists, 1, 1), make_scorer(os.path.exists)),
        *(np.fromregex, np.ctypeslib.load_library, np.apply_along_axis, compile, map, type),
        *(check_memory, check_random_state),
    ],
    ids=lambda function: getattr(function, "__qualname__", type(function).__name__),
)
def test_what_may_open_or_start_something_is_not_called(function: Any):
    for model in (
        make_pipeline(FunctionTransformer(function), LogisticRegression()),
        CountVectorizer(preprocessor=function),
        KernelDensity(metric="pyfunc", metric_params={"func": function}),
        holding("predict", function),
    ):
        with pytest.raises(ModelRefused):
            check_contents(model, Trust())


def test_a_metric_inside_a_compiled_tree_is_found():
    check_contents(in_a_tree("manhattan"), Trust())
    with pytest.raises(ModelRefused, match="which is not trusted"):
        check_contents(in_a_tree(lambda a, b: float(abs(a - b).sum())), Trust())


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(TfidfVectorizer(stop_words="english"), LogisticRegression()),
        searched(CountVectorizer()),
        make_pipeline(
            FunctionTransformer(np.log1p), FunctionTransformer(np.nan_to_num), LogisticRegression()
        ),
        make_pipeline(
            FunctionTransformer(functools.partial(np.clip, a_min=0, a_max=1)), LogisticRegression()
        ),
        ColumnTransformer([("a", StandardScaler(), make_column_selector(dtype_include=np.number))]),
        GridSearchCV(LogisticRegression(), {"C": [1.0]}, scoring=make_scorer(f1_score), cv=2).fit(X, Y),
        holding("random_state", np.random.RandomState(1)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_people_use_is_accepted(model: Any):
    check_contents(model, Trust())


def own_function(rows: Any) -> Any:
    return rows


def test_an_own_function_is_called_once_it_is_trusted_by_name():
    model = make_pipeline(FunctionTransformer(own_function), LogisticRegression())
    with pytest.raises(ModelRefused, match="own_function, which is not trusted"):
        check_contents(model, Trust())
    check_contents(model, Trust(frozenset({f"{__name__}.own_function"})))


def test_a_function_that_says_it_were_another_is_not_taken_for_it():
    def forged(rows: Any) -> Any:
        return rows

    forged.__module__, forged.__qualname__ = "sklearn.metrics.pairwise", "cosine_similarity"
    with pytest.raises(ModelRefused):
        check_contents(FunctionTransformer(forged), Trust())


def test_a_big_forest_takes_no_time():
    forest = RandomForestClassifier(400, max_depth=3).fit(X, Y)
    started = time.process_time()
    check_contents(forest, Trust())
    assert time.process_time() - started < 1


def test_a_pipelines_memory_is_for_fitting_and_no_folder_is_made_by_predicting(tmp_path: Any):
    model = Pipeline([("scale", StandardScaler()), ("last", LogisticRegression())]).fit(X, Y)
    model.memory = str(tmp_path / "cache")
    check_contents(model, Trust())
    model.predict_proba(X)
    assert not (tmp_path / "cache").exists()
