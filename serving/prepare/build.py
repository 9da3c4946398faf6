"""From a version in the registry to a prepared model in the store."""

import datetime as dt
import errno
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from serving.decoding import JsonDecoder
from serving.errors import ModelNotFound, ModelRefused, PrepareError, StorageError
from serving.hook import DIGEST_KEY, preprocessing_digest
from serving.libraries import library_versions
from serving.prepare.compiling import Compiled, compile_model, is_rowwise
from serving.prepare.examples import MAX_EXAMPLES, example_body, sample_inputs
from serving.prepare.registry import resolve
from serving.prepare.resolving import Resolved
from serving.prepared import Manifest, Prepared, find_prepared, preparing, publish
from serving.runtime.compiled.nodes import NotCompiled
from serving.runtime.native import NativeRuntime, load_native
from serving.schema import Inputs, Schema, parse_schema
from serving.settings import Settings

log = logging.getLogger("serving.prepare")


def prepare(settings: Settings) -> Prepared:
    """Returns the prepared model of the version to be served, and makes it where there is none yet.

    Raises:
        PrepareError: which says in one line what is missing or wrong.
    """
    resolved = resolve(settings)
    log.info("registry: %s version %s (%s)", resolved.name, resolved.version, resolved.because)
    try:
        found = find_prepared(resolved.name, resolved.version, resolved.source_key, library_versions())
        if found is None:
            with preparing(resolved.name) as folder:
                # Another process may have made it while this one waited.
                found = find_prepared(
                    resolved.name, resolved.version, resolved.source_key, library_versions()
                )
                found = found or _prepare(resolved, folder, settings)
    except OSError as error:
        raise _storage_error(error) from error
    else:
        return found


def _storage_error(error: OSError) -> StorageError:
    reasons = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    reason = reasons.get(error.errno or 0, error.strerror or type(error).__name__)
    return StorageError(f"the prepared model cannot be written under BENTOML_HOME: {reason}")


def _prepare(resolved: Resolved, folder: Path, settings: Settings) -> Prepared:
    model_folder = _pull(resolved, folder / "mlflow", settings)
    mlmodel = _read_mlmodel(model_folder, resolved)
    schema = _schema_of(mlmodel, resolved)
    metadata = mlmodel.get("metadata") or {}
    _check_preprocessing(metadata.get(DIGEST_KEY), settings)
    runtime = _load(model_folder, schema, resolved)
    examples, is_logged = example_body(model_folder, mlmodel, schema, runtime.model)
    (folder / "examples.json").write_bytes(examples)
    _warm_up(runtime, schema, examples, resolved, is_logged=is_logged)
    sample = sample_inputs(model_folder, mlmodel, schema, examples)
    compiled, reason = _compile(runtime, schema, sample, folder / "compiled", resolved)
    reference = model_folder / "reference.json"
    if reference.exists():
        shutil.copy(reference, folder / "reference.json")
    signature = mlmodel["signature"]
    manifest = Manifest(
        name=resolved.name,
        version=resolved.version,
        run_id=resolved.run_id,
        source_key=resolved.source_key,
        digest=digest_of(model_folder),
        inputs=signature["inputs"],
        outputs=signature.get("outputs"),
        params=signature.get("params"),
        flavors=sorted(mlmodel["flavors"]),
        task=runtime.description.task,
        classes=runtime.description.classes,
        has_probabilities=runtime.description.has_probabilities,
        runtime="native" if compiled is None else "mixed" if compiled.native_steps else "compiled",
        native_reason=reason,
        native_steps=compiled.native_steps if compiled else [],
        parity=compiled.parity if compiled else None,
        is_rowwise=is_rowwise(runtime, schema, sample),
        preprocessing_sha256=metadata.get(DIGEST_KEY),
        libraries=library_versions(),
        prepared_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    prepared = publish(folder, manifest)
    log.info("prepared %s version %s as %s", manifest.name, manifest.version, prepared.tag)
    return prepared


def _pull(resolved: Resolved, target: Path, settings: Settings) -> Path:
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
    return Path(path)


def _read_mlmodel(folder: Path, resolved: Resolved) -> dict[str, Any]:
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


def _schema_of(mlmodel: dict[str, Any], resolved: Resolved) -> Schema:
    signature = mlmodel.get("signature") or {}
    if not signature.get("inputs"):
        raise ModelRefused(
            f"{resolved.name!r} version {resolved.version} was logged without a signature; log it with "
            "signature=mlflow.models.infer_signature(X, model.predict(X))"
        )
    return parse_schema(signature["inputs"], signature.get("params"))


def _check_preprocessing(digest: str | None, settings: Settings) -> None:
    """A model that was trained with another `preprocessing.py` would be fed other features."""
    if digest is None:
        return
    try:
        here = preprocessing_digest()
    except FileNotFoundError:
        here = None
    if digest == here:
        return
    message = (
        f"the model was trained with another preprocessing.py (sha256 {digest[:12]}…, "
        f"here {here[:12] + '…' if here else 'there is none'})"
    )
    if settings.preprocessing_mismatch == "refuse":
        raise ModelRefused(f"{message}; train again, or set SERVING_PREPROCESSING_MISMATCH=warn")
    log.warning("%s; the one that was logged with the model is used", message)


def _load(folder: Path, schema: Schema, resolved: Resolved) -> NativeRuntime:
    try:
        return load_native(folder, schema)
    except PrepareError:
        raise
    except Exception as error:
        log.exception("%s version %s does not load", resolved.name, resolved.version)
        raise ModelRefused(
            f"{resolved.name!r} version {resolved.version} cannot be loaded: {type(error).__name__}: "
            f"{_first_line(error)}"
        ) from error


def _compile(
    native: NativeRuntime, schema: Schema, sample: Inputs, folder: Path, resolved: Resolved
) -> tuple[Compiled | None, str | None]:
    """The compiled model where there is one that answers the same; else, or for its front, why not."""
    try:
        compiled = compile_model(native, schema, sample, folder)
    except NotCompiled as error:
        shutil.rmtree(folder, ignore_errors=True)
        log.info("%s version %s is served natively: %s", resolved.name, resolved.version, error)
        return None, str(error)
    except OSError:
        raise  # the disk is full
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        log.warning("compiling failed; serving natively", exc_info=True)
        return None, f"compiling it raised {type(error).__name__}"
    log.info(
        "%s version %s is compiled: %d rows compared, largest difference %.2g",
        resolved.name,
        resolved.version,
        compiled.parity.rows,
        compiled.parity.max_abs_difference,
    )
    return compiled, compiled.reason


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _warm_up(
    runtime: NativeRuntime, schema: Schema, examples: bytes, resolved: Resolved, *, is_logged: bool
) -> None:
    inputs, params = JsonDecoder(schema, MAX_EXAMPLES).predict(examples)
    try:
        runtime.predict(inputs, params)
    except Exception as error:
        log.exception("%s version %s does not predict", resolved.name, resolved.version)
        which = (
            "cannot predict its own example"
            if is_logged
            else "was logged without an input example, and refuses one made from its signature; log one with "
            "input_example=X.head()"
        )
        raise ModelRefused(
            f"{resolved.name!r} version {resolved.version} {which}: {type(error).__name__}"
        ) from error


def digest_of(folder: Path) -> str:
    """Returns the SHA-256 over the relative names and contents of all files, in the order of the names."""
    total = hashlib.sha256()
    # MLflow itself adds the first as it downloads; loading a model's code leaves the second.
    added = {"registered_model_meta", "__pycache__"}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and not added & set(p.parts)):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()
