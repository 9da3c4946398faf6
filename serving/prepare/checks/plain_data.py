"""Whether a model's files are plain data, or their author's code; checked before they are loaded."""

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

from serving.errors import ModelRefused
from serving.runtime.native import ObjectFile, member, object_file
from serving.runtime.pickles import Refused, names_in

log = logging.getLogger("serving.prepare")

PLAIN_CLASSES = frozenset(
    {
        *("xgboost.core.Booster", "lightgbm.basic.Booster"),
        *(
            f"xgboost.sklearn.XGB{kind}"
            for kind in ("Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor")
        ),
    }
)
"""`model_class` of models that MLflow saves in the library's own format. Source: mlflow/xgboost and mlflow/lightgbm,
`_save_model`."""

PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".cloudpickle", ".pt", ".pth"})


def needed_types(file: ObjectFile) -> list[str]:
    """Returns the types and functions that a skops file or a pickle needs, without loading it.

    Of a skops file, only those that skops does not trust by default.

    Raises:
        ModelRefused: it is damaged, or calls methods, which no model needs.
    """
    try:
        if not file.is_skops:
            return names_in(file.path)
        from skops import io

        names = list(io.get_untrusted_types(file=file.path))
        with zipfile.ZipFile(file.path) as archive:
            caller = _find_caller(json.loads(archive.read("schema.json")))
    except Refused as error:
        raise ModelRefused(f"its pickle cannot be read as data: {error}; log it with skops") from error
    except Exception as error:
        log.info("the model's file cannot be read", exc_info=True)
        raise ModelRefused(
            "it cannot be loaded: its file is damaged, or in an unknown format; log the model again"
        ) from error
    if caller is not None:
        raise ModelRefused(f"its skops file {caller}, which no model of the libraries needs; log it without")
    return names


BOOSTERS = ("xgboost.core.Booster", "lightgbm.basic.Booster")
"""Their constructors open files; models store their state instead."""


def _find_caller(schema: Any) -> str | None:
    """The node of a skops file that calls more than `__new__` and a constructor that only stores its arguments."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            kind, name = node.get("__loader__"), f"{node.get('__module__')}.{node.get('__class__')}"
            if kind in ("MethodNode", "OperatorFuncNode"):
                return f"holds a method of {name} as a value"
            if name in BOOSTERS and kind not in ("ObjectNode", "TypeNode", "CachedNode"):
                return f"calls {name}"
    return None


def find_code(folder: Path, flavors: dict[str, Any]) -> str | None:
    """Returns what in a model's files is, or may run, its author's code, with a remedy, as the end of a sentence.

    None for plain data: XGBoost's and LightGBM's own formats, and a skops file or a pickle, which are checked type by
    type. MLflow's loaders let code logged with a model shadow all other modules, and import classes that the MLmodel
    file names.
    """
    main = object_file(folder, flavors)
    if main is None:
        # As MLflow's loader chooses: XGBoost's comes first, even if it is empty.
        flavor = flavors.get("xgboost", flavors.get("lightgbm"))
        if flavor is None:
            return f"{_code_of_pyfunc(flavors)}; log it with mlflow.sklearn, mlflow.xgboost or mlflow.lightgbm if it can be"
        if flavor.get("code"):
            return "has its own code (code_paths), which MLflow would run; log it without"
        if flavor.get("model_class", "xgboost.core.Booster") not in PLAIN_CLASSES:
            return (
                f"is a {flavor.get('model_class')}, which is not a supported class; log one of "
                f"{', '.join(sorted(name.rpartition('.')[2] for name in PLAIN_CLASSES))}"
            )
        member(folder, flavor.get("data"))
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        is_main = main is not None and file.resolve() == main.path
        if not is_main and (file.suffix in PICKLE_SUFFIXES or _begins_like_a_pickle(file)):
            return "has a pickle among its files beside the model; log it without that file"
    return None


def _code_of_pyfunc(flavors: dict[str, Any]) -> str:
    loader = (flavors.get("python_function") or {}).get("loader_module")
    others = ", ".join(sorted(set(flavors) - {"python_function"}))
    if others:
        return (
            f"has the flavor {others}, which is loaded through mlflow.pyfunc and may run the model's own code"
        )
    if loader == "mlflow.pyfunc.model":
        return "is a pyfunc model with its own Python code, which would run here"
    return "is loaded through mlflow.pyfunc, which may run the model's own code"


def why_a_pickle_is_code(untrusted: list[str]) -> str | None:
    """Returns why a pickle of these types is not plain data, with a remedy, as the end of a sentence; else None.

    cloudpickle stores the code of functions and classes that cannot be imported.
    """
    if not untrusted:
        return None
    if any(name.startswith("scipy.stats.") for name in untrusted):
        return (
            "is a pickle of a search that holds distributions of scipy.stats, which run code when loaded; log the "
            "search's best_estimator_"
        )
    if any(name.startswith(("cloudpickle.", "__main__.", "builtins.type", "types.")) for name in untrusted):
        return (
            "is a pickle that holds functions or classes defined in the training code (a notebook, a script, a "
            "lambda), and loading it would run their code; import them from a module, which SERVING_TRUSTED_TYPES can "
            "name"
        )
    return (
        f"is a pickle that needs untrusted types: {', '.join(untrusted)}; if you trust them, set "
        f"SERVING_TRUSTED_TYPES={','.join(untrusted)}"
    )


def _begins_like_a_pickle(file: Path) -> bool:
    # Protocols 2 to 5 begin with PROTO. Source: Python's pickletools.
    with file.open("rb") as stream:
        head = stream.read(2)
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5
