"""Pulls a version's files from the artifact store, and checks them before they are loaded."""

import importlib.util
import logging
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from serving.errors import ModelNotFound, ModelRefused, PrepareError
from serving.model.hook import DIGEST_KEY, preprocessing_digest
from serving.model.prepared import PyfuncAnswer, fetched_folder
from serving.model.schema import Schema, parse_schema
from serving.prepare.checks.contents import check_contents
from serving.prepare.checks.failures import where_raised
from serving.prepare.checks.gate import check_libraries, differing_libraries
from serving.prepare.checks.plain_data import BOOSTERS, find_code, needed_types, why_a_pickle_is_code
from serving.prepare.checks.trust import check_code, check_preprocessing, check_types, untrusted_types
from serving.prepare.registry.artifacts import fetch
from serving.prepare.registry.resolution import Resolved
from serving.prepare.registry.stores import find_place
from serving.runtime.native import NativeRuntime, code_folder, load_native, object_file, own_hook, own_modules
from serving.runtime.pickles import Refused
from serving.runtime.trusted import Trust
from serving.settings import Settings

log = logging.getLogger("serving.prepare")


def pull(resolved: Resolved, target: Path, settings: Settings) -> None:
    """Fetches a version's files into a new folder.

    Raises:
        ModelNotFound: they cannot be fetched.
        ModelRefused: they are too large.
        OSError: they cannot be written.
    """
    fetched = fetched_folder(resolved.name, resolved.source_key)
    fetch(resolved, fetched, settings).rename(target)
    shutil.rmtree(fetched)
    # Bytecode would run instead of the source that is checked.
    for cache in list(target.rglob("__pycache__")):
        shutil.rmtree(cache)
    for bytecode in list(target.rglob("*.py[co]")):
        bytecode.unlink()


def read_mlmodel(folder: Path, resolved: Resolved, settings: Settings) -> dict[str, Any]:
    """Returns the content of the MLmodel file.

    Args:
        folder: with the version's files.
        resolved: the version.
        settings: of the service.

    Raises:
        ModelNotFound: it is missing or unreadable.
    """
    try:
        mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
        flavors = mlmodel["flavors"]
        if not isinstance(flavors, dict):
            raise TypeError
    except (OSError, yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError):
        raise ModelNotFound(
            f"the artifacts of {resolved.title} cannot be fetched{find_place(resolved, settings)}: "
            "they have no readable MLmodel file; register the model again"
        ) from None
    else:
        return dict(mlmodel)


def schema_of(mlmodel: dict[str, Any], nulls: dict[str, str] | None = None) -> Schema:
    """Returns the inputs that an MLmodel file describes; `nulls` as `parse_schema` takes them.

    Raises:
        ModelRefused: it describes none, or has unsupported types.
    """
    signature = mlmodel.get("signature") or {}
    if not signature.get("inputs"):
        raise ModelRefused(
            "it was logged without a signature; log it with "
            "signature=mlflow.models.infer_signature(X, model.predict(X)) and input_example=X.head(50)"
        )
    return parse_schema(signature["inputs"], signature.get("params"), nulls)


class Files(NamedTuple):
    """What must be trusted in a model's files."""

    hook_digest: str | None
    writers_code: str | None
    """See `Manifest`."""
    own_types: list[str]

    @property
    def trust(self) -> Trust | None:
        """The types that the model may contain; None if it runs its author's code."""
        if self.writers_code is not None:
            return None
        return Trust(frozenset(self.own_types), self.hook_digest is not None)


def check_files(folder: Path, mlmodel: dict[str, Any], settings: Settings) -> Files:
    """Checks a model's files before they are loaded.

    Raises:
        ModelRefused: they need another `preprocessing.py` or other libraries, or run untrusted code.
    """
    flavors = mlmodel["flavors"]
    hook = own_hook(folder, flavors)
    # The file counts first, because it is what would run.
    recorded = (mlmodel.get("metadata") or {}).get(DIGEST_KEY)
    hook_digest = preprocessing_digest(hook) if hook is not None else recorded
    mismatch = check_preprocessing(hook_digest, settings)
    if mismatch is not None and hook is None:
        log.warning("the model %s, and has no copy of it; using the service's", mismatch)
    # Before the types: another library version may have types that are unknown here.
    check_libraries(folder / "requirements.txt", settings.library_versions)
    writers_code = find_code(folder, flavors)
    own_types: list[str] = []
    file = object_file(folder, flavors)
    if file is not None and writers_code is None:
        names = needed_types(file)
        # The hook was compared with ours, or may differ.
        own_types = untrusted_types(names, frozenset(), has_our_preprocessing=hook_digest is not None)
        untrusted = [name for name in own_types if name not in settings.trusted_type_names]
        _refuse_gone(untrusted, differing_libraries(folder / "requirements.txt"))
        if file.is_skops:
            check_types(untrusted)
        else:
            writers_code = why_a_pickle_is_code(untrusted)
        if writers_code is None:
            writers_code = why_types_are_code(own_types, code_folder(folder, flavors))
        if writers_code is None and mismatch is not None and hook is not None:
            writers_code = (
                f"{mismatch} and would run its own; put the same file beside the service, train again"
            )
    allow_code(writers_code, settings)
    return Files(hook_digest, writers_code, own_types if writers_code is None else [])


def _refuse_gone(names: list[str], others: list[str]) -> None:
    """Refuses a model of types that newer libraries have removed; no setting brings them back.

    Args:
        names: of its untrusted types.
        others: the libraries that it was logged with, if other versions are installed.
    """
    gone = [name for name in names if others and not _has_module(name.rpartition(".")[0])]
    if gone:
        raise ModelRefused(
            f"it contains {', '.join(gone)}, which the installed libraries do not have; it was logged with "
            f"{', '.join(others)}: train it with the installed versions"
        )


def why_types_are_code(names: list[str], code: Path | None) -> str | None:
    """Returns why a model of these trusted types runs its own code, with a remedy, as the end of a sentence; else None.

    Trust in a type is trust in the module that is installed here, which the author of a model cannot change.

    Args:
        names: the types.
        code: the folder of the code logged with the model, if there is any.

    Raises:
        ModelRefused: neither the service nor the model has the module of one.
    """
    missing = [name for name in names if not _has_module(name.rpartition(".")[0])]
    if not missing:
        return None
    if code is None or not own_modules(code, missing):
        raise ModelRefused(
            f"it needs {', '.join(missing)}, which is not installed with the service; install its module there"
        )
    return (
        f"needs {', '.join(missing)}, which is not installed with the service, and would run the code logged with it "
        "(code_paths); install its module with the service"
    )


def _has_module(name: str) -> bool:
    """Whether an installed package has a module; does not import it."""
    package, *inner = name.split(".")
    if not package or name in sys.modules:
        return bool(package)
    spec = importlib.util.find_spec(package)
    if spec is None or not inner:
        return spec is not None and spec.origin is not None
    places = [Path(place).joinpath(*inner[:-1]) for place in spec.submodule_search_locations or ()]
    return any(file for place in places for file in place.glob(f"{inner[-1]}*"))


def allow_code(writers_code: str | None, settings: Settings) -> None:
    """Logs a warning if the model runs its author's code.

    Raises:
        ModelRefused: this is not allowed.
    """
    check_code(writers_code, settings)
    if writers_code is not None:
        log.warning(
            "the model %s: loading it runs its author's code with this service's permissions "
            "(SERVING_ALLOW_PICKLE=true)",
            writers_code.partition(";")[0],
        )


def load(
    folder: Path, schema: Schema, files: Files, settings: Settings, *, is_per_row: bool = True
) -> tuple[NativeRuntime, Files]:
    """Loads a model as data or as code, and checks its contents; returns it with what `files` turned out to be.

    Raises:
        ModelRefused: it cannot be loaded, cannot predict, or contains what a model must not.
    """
    try:
        runtime = load_native(folder, schema, files.trust, is_per_row=is_per_row)
    except (PrepareError, MemoryError):
        raise
    except Exception as error:
        # If code may run, Python loads a pickle that cannot be read as data.
        if isinstance(error, Refused) or (settings.allow_pickle and files.trust is not None):
            what = str(error) if isinstance(error, Refused) else f"it raises {type(error).__name__}"
            code = f"is a pickle that cannot be read as data: {what}; log it with skops"
            allow_code(code, settings)
            files = files._replace(writers_code=code, own_types=[])
            return load(folder, schema, files, settings, is_per_row=is_per_row)
        log.exception("the model cannot be loaded")
        others = differing_libraries(folder / "requirements.txt")
        if others:
            raise ModelRefused(
                f"the installed libraries cannot load it: {type(error).__name__} in {where_raised(error)}; "
                f"it was logged with {', '.join(others)}: train it with the installed versions"
            ) from error
        raise ModelRefused(
            f"it cannot be loaded: {type(error).__name__} in {where_raised(error)}; load it with "
            "mlflow.pyfunc.load_model in an environment with the service's requirements to see more"
        ) from error
    if files.trust is not None and runtime.model is not None:
        check_contents(runtime.model, files.trust)
    return runtime, files


def pyfunc_answer(flavors: dict[str, Any]) -> PyfuncAnswer:
    """Returns what `mlflow.pyfunc` answers for a classifier of these flavors.

    Source: mlflow/sklearn, xgboost and lightgbm, `_SklearnModelWrapper`, `_XGBModelWrapper` and `_LGBModelWrapper`.
    """
    if "sklearn" in flavors:
        asks = (flavors.get("python_function") or {}).get("predict_fn", "predict")
        return PyfuncAnswer.PROBABILITIES if asks == "predict_proba" else PyfuncAnswer.LABELS
    libraries = [library for library in ("xgboost", "lightgbm") if library in flavors]
    is_raw = any((flavors[one] or {}).get("model_class", BOOSTERS[0]) in BOOSTERS for one in libraries)
    return PyfuncAnswer.RAW if is_raw else PyfuncAnswer.LABELS
