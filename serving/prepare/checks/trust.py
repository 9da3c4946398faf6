"""What a model's files may do to the process that reads them.

Reading a pickle runs what its writer put into it. A skops file is data, read by name: of it we make only the
types on our own list, whatever list the model brings along.
"""

import importlib
import inspect
import logging
import re
from pathlib import Path
from typing import Any

from serving.errors import ModelRefused
from serving.model.hook import preprocessing_digest
from serving.model.prepared import Manifest
from serving.settings import Settings

log = logging.getLogger("serving.prepare")

LIBRARIES = ("sklearn", "_loss", "xgboost", "lightgbm")
"""Libraries whose classes a model may be made of: none of them does more on being made than take its state.
`_loss` is how scikit-learn's compiled loss module calls itself."""

FUNCTIONS = ("sklearn.feature_selection", "sklearn.metrics", "sklearn.utils.extmath")
"""Modules whose functions a model may call; others read files or fetch data."""

OTHERS = frozenset(
    {
        "numpy.dtype",
        "numpy.clip",
        "numpy.nan_to_num",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.interpolate._interpolate.interp1d",
    }
)
"""And these, beside what skops trusts by itself (NumPy's arrays and functions of numbers, SciPy's matrices)."""

PLAIN_CLASSES = frozenset(
    {
        *("xgboost.core.Booster", "lightgbm.basic.Booster"),
        *(
            f"xgboost.sklearn.XGB{kind}"
            for kind in ("Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor")
        ),
    }
)
"""`model_class` of what MLflow saves in the library's own format. Source: mlflow/xgboost and mlflow/lightgbm,
`_save_model`."""

PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".cloudpickle", ".pt", ".pth"})


def untrusted_types(names: list[str], own_types: frozenset[str], *, has_our_preprocessing: bool) -> list[str]:
    """Returns those of a skops file's types that are not to be made.

    Args:
        names: what skops itself does not know, such as `sklearn.tree._tree.Tree`.
        own_types: trusted, too: `SERVING_TRUSTED_TYPES`.
        has_our_preprocessing: whether the model was trained with the `preprocessing.py` that stands here.
    """
    return sorted(
        name
        for name in names
        if name not in own_types
        and not (has_our_preprocessing and re.fullmatch(r"preprocessing\.\w+", name))
        and not _is_of_a_library(name)
    )


def _is_of_a_library(name: str) -> bool:
    if name in OTHERS:
        return True
    if name.partition(".")[0] not in LIBRARIES:
        return False
    found = _find(name)
    # Where it was defined, not where it was found: a module of scikit-learn may import anything.
    home = str(getattr(found, "__module__", ""))
    if inspect.isclass(found):
        return home.partition(".")[0] in LIBRARIES
    return inspect.isfunction(found) and home.startswith(tuple(f"{module}." for module in FUNCTIONS))


def _find(name: str) -> Any:
    """What a dotted name means; None where it means nothing that is installed."""
    if name.startswith("_loss."):
        name = f"sklearn._loss.{name}"
    module_name, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute, None)
    except ImportError:
        return None


def check_admission(manifest: Manifest, settings: Settings) -> None:
    """Refuses a prepared model that the settings, which may have changed since, do not allow.

    Raises:
        ModelRefused: what it is made of is not trusted any more, or it was trained with another `preprocessing.py`.
    """
    check_code(manifest.writers_code, settings)
    check_preprocessing(manifest.preprocessing_sha256, settings)
    check_types([name for name in manifest.own_types if name not in settings.trusted_type_names])


def check_code(why: str | None, settings: Settings) -> None:
    """Refuses a model that cannot be read without running what its writer put into it.

    Args:
        why: what `find_pickle` found.
        settings: of the service.

    Raises:
        ModelRefused: it is a pickle, or code of its own loads it, and that is not allowed.
    """
    if why is None:
        return
    if not settings.allow_pickle:
        raise ModelRefused(
            f"it {why}, and loading it would run code that its writer chose; log it with "
            'serialization_format="skops", or set SERVING_ALLOW_PICKLE=true where all who may register models are '
            "trusted like those who may deploy"
        )


def check_preprocessing(digest: str | None, settings: Settings) -> str | None:
    """Refuses a model that was trained with another `preprocessing.py`, and would be fed other features.

    Args:
        digest: of the file that it was trained with; None where there was none.
        settings: of the service.

    Returns:
        What is wrong, where that is allowed; else None.

    Raises:
        ModelRefused: it is not allowed.
    """
    if digest is None:
        return None
    try:
        here = preprocessing_digest()
    except FileNotFoundError:
        here = None
    if digest == here:
        return None
    message = (
        f"the model was trained with another preprocessing.py (sha256 {digest[:12]}…, "
        f"here {here[:12] + '…' if here else 'there is none'})"
    )
    if settings.preprocessing_mismatch == "refuse":
        raise ModelRefused(f"{message}; train again, or set SERVING_PREPROCESSING_MISMATCH=warn")
    return message


def check_types(untrusted: list[str]) -> None:
    """Refuses a model of types that nobody trusts.

    Raises:
        ModelRefused: there are some; names them.
    """
    if untrusted:
        names = ",".join(untrusted)
        raise ModelRefused(
            f"it is made of types that are not trusted; if you trust them, set SERVING_TRUSTED_TYPES={names}"
        )


def find_pickle(folder: Path, flavors: dict[str, Any]) -> str | None:
    """Returns what in a model is, or may run, code of its writer's, as the end of a sentence; None of plain data.

    Plain data are: scikit-learn saved with skops, and XGBoost's and LightGBM's own formats, without code beside.
    MLflow's default for a missing `serialization_format` is a pickle; its loaders put the code that was logged with
    a model in front of all other modules, and import classes that the MLmodel file names.
    """
    if "sklearn" in flavors:
        if (flavors["sklearn"] or {}).get("serialization_format") != "skops":
            return "is a pickle"
    elif "xgboost" in flavors or "lightgbm" in flavors:
        flavor = flavors.get("xgboost") or flavors.get("lightgbm") or {}
        if flavor.get("code"):
            return "brings code of its own"
        if flavor.get("model_class", "xgboost.core.Booster") not in PLAIN_CLASSES:
            return f"is a {flavor.get('model_class')}, which is saved as a pickle"
    else:
        return "is loaded through mlflow.pyfunc, which may run code of the model's own"
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        if file.suffix in PICKLE_SUFFIXES or _begins_like_a_pickle(file):
            return "has a pickle among its files"
    return None


def check_input(model: Any) -> None:
    """Refuses a model that would open files whose names callers send.

    Raises:
        ModelRefused: a vectorizer with `input="filename"` or `"file"` is a part of it.
    """
    parts = [model, *(model.get_params(deep=True).values() if hasattr(model, "get_params") else ())]
    for part in parts:
        if getattr(part, "input", None) in ("filename", "file"):
            raise ModelRefused(
                f"its {type(part).__name__} reads files that callers name (input={part.input!r})"
            )


def _begins_like_a_pickle(file: Path) -> bool:
    # Protocols 2 to 5 begin with PROTO. Source: Python's pickletools.
    with file.open("rb") as stream:
        head = stream.read(2)
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5
