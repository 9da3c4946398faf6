"""A version's files: pulled from the artifact store, and looked at before anything is made of them."""

import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from serving.errors import ModelNotFound, ModelRefused, PrepareError
from serving.model.hook import DIGEST_KEY, preprocessing_digest
from serving.model.prepared import fetched_folder
from serving.model.schema import Schema, parse_schema
from serving.prepare.checks.contents import check_contents
from serving.prepare.checks.failures import where_raised
from serving.prepare.checks.gate import check_libraries, differing_libraries
from serving.prepare.checks.plain_data import find_code, needed_types, why_a_pickle_is_code
from serving.prepare.checks.trust import check_code, check_preprocessing, check_types, untrusted_types
from serving.prepare.registry.artifacts import fetch
from serving.prepare.registry.resolution import Resolved
from serving.prepare.registry.stores import find_place
from serving.runtime.native import HOOK, NativeRuntime, code_folder, load_native, object_file
from serving.runtime.pickles import Refused
from serving.runtime.trusted import Trust
from serving.settings import Settings

log = logging.getLogger("serving.prepare")


def pull(resolved: Resolved, target: Path, settings: Settings) -> None:
    """Fetches a version's files into a new folder.

    Raises:
        ModelNotFound: they cannot be fetched.
        ModelRefused: they must not be.
        OSError: they cannot be written.
    """
    fetched = fetched_folder(resolved.name, resolved.source_key)
    fetch(resolved, fetched, settings).rename(target)
    shutil.rmtree(fetched)
    # Bytecode would run instead of the source that is looked at.
    for cache in list(target.rglob("__pycache__")):
        shutil.rmtree(cache)
    for bytecode in list(target.rglob("*.py[co]")):
        bytecode.unlink()


def read_mlmodel(folder: Path, resolved: Resolved, settings: Settings) -> dict[str, Any]:
    """Returns what the MLmodel file says.

    Args:
        folder: with the version's files.
        resolved: the version.
        settings: of the service.

    Raises:
        ModelNotFound: there is none that can be read.
    """
    try:
        mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
        flavors = mlmodel["flavors"]
        if not isinstance(flavors, dict):
            raise TypeError
    except (OSError, yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError):
        raise ModelNotFound(
            f"the artifacts of {resolved.title} cannot be fetched{find_place(resolved, settings)}: "
            "there is no MLmodel file that can be read among them; register the model again"
        ) from None
    else:
        return dict(mlmodel)


def schema_of(mlmodel: dict[str, Any], nulls: dict[str, str] | None = None) -> Schema:
    """Returns the inputs that an MLmodel file describes; `nulls` as `parse_schema` takes them.

    Raises:
        ModelRefused: it describes none, or of types that are not known.
    """
    signature = mlmodel.get("signature") or {}
    if not signature.get("inputs"):
        raise ModelRefused(
            "it was logged without a signature; log it with "
            "signature=mlflow.models.infer_signature(X, model.predict(X)) and input_example=X.head(50)"
        )
    return parse_schema(signature["inputs"], signature.get("params"), nulls)


class Files(NamedTuple):
    """What a model's files are, as far as somebody has to trust them."""

    hook_digest: str | None
    writers_code: str | None
    """See `Manifest`."""
    own_types: list[str]

    @property
    def trust(self) -> Trust | None:
        """What the model may be made of; None where it runs its writer's code."""
        if self.writers_code is not None:
            return None
        return Trust(frozenset(self.own_types), self.hook_digest is not None)


def check_files(folder: Path, mlmodel: dict[str, Any], settings: Settings) -> Files:
    """Looks at a model's files before anything is made of them.

    Raises:
        ModelRefused: they are of another `preprocessing.py`, run code that nobody trusts, or want other libraries.
    """
    flavors = mlmodel["flavors"]
    hook_digest = _hook_digest(folder, flavors, (mlmodel.get("metadata") or {}).get(DIGEST_KEY))
    mismatch = check_preprocessing(hook_digest, settings)
    if mismatch is not None:
        log.warning("%s; the one that was logged with the model is used", mismatch)
    # Before its types: of another version's model some of them are not known here.
    check_libraries(folder / "requirements.txt", settings.library_versions)
    writers_code = find_code(folder, flavors)
    own_types: list[str] = []
    file = object_file(folder, flavors)
    if file is not None and writers_code is None:
        names = needed_types(file)
        # The hook was compared with the one that stands here, or is allowed to differ.
        own_types = untrusted_types(names, frozenset(), has_our_preprocessing=hook_digest is not None)
        untrusted = [name for name in own_types if name not in settings.trusted_type_names]
        _refuse_gone(untrusted, differing_libraries(folder / "requirements.txt"))
        if file.is_skops:
            check_types(untrusted)
        else:
            writers_code = why_a_pickle_is_code(untrusted)
    allow_code(writers_code, settings)
    return Files(hook_digest, writers_code, own_types if writers_code is None else [])


def _refuse_gone(names: list[str], others: list[str]) -> None:
    """Refuses a model of types that its libraries have given up since; no setting brings them back.

    Args:
        names: of its types that are not trusted.
        others: the libraries that it was logged with, and that are others here.
    """
    gone = [name for name in names if others and not _has_module(name.rpartition(".")[0])]
    if gone:
        raise ModelRefused(
            f"it is made of {', '.join(gone)}, which is not in the libraries that are installed here; it was logged with "
            f"{', '.join(others)}: train it with those that are here"
        )


def _has_module(name: str) -> bool:
    """Whether a package that is installed has a module, which is not imported."""
    package, *inner = name.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    return not inner or any(Path(spec.origin).parent.joinpath(*inner[:-1]).glob(f"{inner[-1]}*"))


def allow_code(writers_code: str | None, settings: Settings) -> None:
    """Lets code of the model's writer run where that is allowed, and says so in the log.

    Raises:
        ModelRefused: it is not allowed.
    """
    check_code(writers_code, settings)
    if writers_code is not None:
        log.warning(
            "the model %s: loading it runs code that its writer chose, with this service's rights "
            "(SERVING_ALLOW_PICKLE=true)",
            writers_code.partition(";")[0],
        )


def load(
    folder: Path, schema: Schema, files: Files, settings: Settings, *, is_per_row: bool = True
) -> tuple[NativeRuntime, Files]:
    """Loads a model as its files deserve, and looks at what it holds; returns it with what they turned out to be.

    Raises:
        ModelRefused: it cannot be loaded, has no way to predict, or holds what a model must not.
    """
    try:
        runtime = load_native(folder, schema, files.trust, is_per_row=is_per_row)
    except (PrepareError, MemoryError):
        raise
    except Exception as error:
        # Where code may run, what cannot be read as data is read as Python does.
        if isinstance(error, Refused) or (settings.allow_pickle and files.trust is not None):
            what = str(error) if isinstance(error, Refused) else f"it raises {type(error).__name__}"
            code = f"is a pickle that is not read as data: {what}; log it with skops"
            allow_code(code, settings)
            files = files._replace(writers_code=code, own_types=[])
            return load(folder, schema, files, settings, is_per_row=is_per_row)
        log.exception("the model does not load")
        others = differing_libraries(folder / "requirements.txt")
        if others:
            raise ModelRefused(
                f"the libraries that are installed here cannot load it: {type(error).__name__} in {where_raised(error)}; "
                f"it was logged with {', '.join(others)}: train it with those that are here"
            ) from error
        raise ModelRefused(
            f"it cannot be loaded: {type(error).__name__} in {where_raised(error)}; load it with "
            "mlflow.pyfunc.load_model in an environment of the service's requirements to see more"
        ) from error
    if files.trust is not None and runtime.model is not None:
        check_contents(runtime.model, files.trust)
    return runtime, files


def _hook_digest(folder: Path, flavors: dict[str, Any], recorded: str | None) -> str | None:
    """The digest of the `preprocessing.py` among the model's files, else the one that was recorded.

    The file that would run counts, not what is said of it.
    """
    code = code_folder(folder, flavors.get("sklearn") or {})
    hook = code / HOOK if code else None
    return preprocessing_digest(hook) if hook and hook.is_file() else recorded
