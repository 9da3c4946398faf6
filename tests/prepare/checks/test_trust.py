"""`serving.prepare.checks.trust`: what a model's files may do to the process that reads them."""

from contextlib import nullcontext
from typing import Any

import pytest
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestRegressor,
)
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
    check_types,
    untrusted_types,
)
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


@pytest.mark.parametrize(("mismatch", "is_refused"), [("refuse", True), ("warn", False)])
def test_what_was_prepared_with_another_preprocessing_is_admitted_only_where_that_is_allowed(
    mismatch: str, is_refused: bool
):
    manifest = some_manifest(preprocessing_sha256="0" * 64)
    with pytest.raises(ModelRefused, match="with another preprocessing") if is_refused else nullcontext():
        check_admission(manifest, Settings(preprocessing_mismatch=mismatch))
    check_admission(some_manifest(preprocessing_sha256=preprocessing_digest()), Settings())
