"""A version's files: pulled from the artifact store, and looked at before anything is made of them."""

import errno
import logging
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from serving.errors import ModelNotFound, ModelRefused
from serving.model.hook import DIGEST_KEY, preprocessing_digest
from serving.model.schema import Schema, parse_schema
from serving.prepare.checks.gate import check_libraries
from serving.prepare.checks.trust import (
    check_code,
    check_preprocessing,
    check_types,
    find_pickle,
    untrusted_types,
)
from serving.prepare.registry.resolution import Resolved
from serving.runtime.native import HOOK, code_folder, skops_file
from serving.settings import Settings

log = logging.getLogger("serving.prepare")


def pull(resolved: Resolved, target: Path, settings: Settings) -> Path:
    """Returns the folder of a version's files, which it fetches into a new one.

    Raises:
        ModelNotFound: they cannot be fetched.
        OSError: they cannot be written.
    """
    import mlflow

    target.mkdir()
    try:
        path = mlflow.artifacts.download_artifacts(
            artifact_uri=f"models:/{resolved.name}/{resolved.version}",
            dst_path=str(target),
            tracking_uri=settings.tracking_uri,
            registry_uri=settings.tracking_uri,
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        # MLflow wraps what its stores raise; a full disk is told by asking the disk.
        if shutil.disk_usage(target).free < 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise ModelNotFound(
            f"the artifacts of {resolved.name!r} version {resolved.version} cannot be fetched: "
            f"{type(error).__name__}; is its artifact store reachable from here?"
        ) from error
    model_folder = Path(path)
    # Bytecode would run instead of the source that is looked at.
    for cache in list(model_folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    for bytecode in list(model_folder.rglob("*.py[co]")):
        bytecode.unlink()
    return model_folder


def read_mlmodel(folder: Path, resolved: Resolved) -> dict[str, Any]:
    """Returns what the MLmodel file says.

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
            f"the artifacts of {resolved.name!r} version {resolved.version} cannot be fetched: "
            "there is no MLmodel file that can be read among them"
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
    own_types: list[str]


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
    writers_code = find_pickle(folder, flavors)
    check_code(writers_code, settings)
    if writers_code is not None:
        log.warning(
            "the model %s: loading it runs code that its writer chose, with this service's rights "
            "(SERVING_ALLOW_PICKLE=true)",
            writers_code,
        )
    own_types = _check_types(folder, flavors, settings, has_hook=hook_digest is not None)
    check_libraries(folder / "requirements.txt", settings.library_versions)
    return Files(hook_digest, writers_code, own_types)


def _hook_digest(folder: Path, flavors: dict[str, Any], recorded: str | None) -> str | None:
    """The digest of the `preprocessing.py` among the model's files, else the one that was recorded.

    The file that would run counts, not what is said of it.
    """
    code = code_folder(folder, flavors.get("sklearn") or {})
    hook = code / HOOK if code else None
    return preprocessing_digest(hook) if hook and hook.is_file() else recorded


def _check_types(folder: Path, flavors: dict[str, Any], settings: Settings, *, has_hook: bool) -> list[str]:
    """Refuses a skops model of untrusted types; returns those that only the settings make trusted."""
    file = skops_file(folder, flavors.get("sklearn") or {})
    if file is None:
        return []
    from skops import io

    try:
        names = io.get_untrusted_types(file=file)
    except Exception as error:
        raise ModelRefused(f"it cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    # The hook was compared with the one that stands here, or is allowed to differ.
    check_types(untrusted_types(names, settings.trusted_type_names, has_our_preprocessing=has_hook))
    return untrusted_types(names, frozenset(), has_our_preprocessing=has_hook)


def first_line(error: Exception) -> str:
    """Returns what an exception says in short, of others' code that may say it at length."""
    return (str(error).strip().splitlines() or [""])[0][:200]
