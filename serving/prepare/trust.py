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
from serving.prepared import Manifest
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

PICKLES = frozenset({"pickle", "cloudpickle", "joblib"})
"""MLflow's `serialization_format` of what is a pickle."""

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
        ModelRefused: what it is made of is not trusted any more.
    """
    check_code(manifest.writers_code, settings)
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
    log.warning(
        "the model %s: loading it runs code that its writer chose, with this service's rights "
        "(SERVING_ALLOW_PICKLE=true)",
        why,
    )


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
    """Returns what in a model is, or runs, code of its writer's, as the end of a sentence; None of plain data."""
    for name in ("sklearn", "lightgbm", "xgboost"):
        if (flavors.get(name) or {}).get("serialization_format") in PICKLES:
            return "is a pickle"
    pyfunc = flavors.get("python_function") or {}
    if "python_model" in pyfunc or "model_code_path" in pyfunc:
        return "is a pyfunc model of its own code"
    if not str(pyfunc.get("loader_module", "mlflow.")).startswith("mlflow."):
        return "is loaded by code of its own"
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        if file.suffix in PICKLE_SUFFIXES or _begins_like_a_pickle(file):
            return "has a pickle among its files"
    return None


def _begins_like_a_pickle(file: Path) -> bool:
    # Protocols 2 to 5 begin with PROTO. Source: Python's pickletools.
    with file.open("rb") as stream:
        head = stream.read(2)
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5
