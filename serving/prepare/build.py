"""From a version in the registry to a prepared model in the store."""

import base64
import datetime as dt
import errno
import hashlib
import logging
import os
import shutil
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import msgspec
import yaml

from serving.decoding import JsonDecoder
from serving.errors import ModelNotFound, ModelRefused, PrepareError, RequestError, StorageError
from serving.hook import DIGEST_KEY, preprocessing_digest
from serving.openapi import example_instance
from serving.prepare.registry import Resolved, resolve
from serving.prepared import Manifest, Prepared, find_prepared, preparing, publish
from serving.runtime.native import NativeRuntime, load_native
from serving.schema import Form, Kind, Schema, parse_schema
from serving.settings import Settings

log = logging.getLogger("serving.prepare")

LIBRARIES = (
    "mlflow-skinny",
    "scikit-learn",
    "numpy",
    "pandas",
    "skops",
    "xgboost",
    "xgboost-cpu",
    "lightgbm",
)

MAX_EXAMPLES = 5
"""Rows of the logged input example that are kept."""


def prepare(settings: Settings) -> Prepared:
    """Returns the prepared model of the version to be served, and makes it where there is none yet.

    Raises:
        PrepareError: which says in one line what is missing or wrong.
    """
    resolved = resolve(settings)
    log.info("registry: %s version %s (%s)", resolved.name, resolved.version, resolved.because)
    try:
        found = find_prepared(resolved.name, resolved.version, resolved.source_key)
        if found is None:
            with preparing(resolved.name) as folder:
                # Another process may have made it while this one waited.
                found = find_prepared(resolved.name, resolved.version, resolved.source_key)
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
    examples = _examples(model_folder, mlmodel, schema)
    (folder / "examples.json").write_bytes(examples)
    _warm_up(runtime, schema, examples, resolved)
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
        runtime="native",
        native_reason="no compiled runtime for this model",
        preprocessing_sha256=metadata.get(DIGEST_KEY),
        libraries=_libraries(),
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _examples(folder: Path, mlmodel: dict[str, Any], schema: Schema) -> bytes:
    """A request body: the logged input example where it fits the signature, else one made from the types."""
    for instances in _logged_instances(folder, mlmodel, schema):
        body = msgspec.json.encode({"instances": instances[:MAX_EXAMPLES]})
        try:
            JsonDecoder(schema, MAX_EXAMPLES).predict(body)
        except RequestError as error:
            log.warning("the logged input example is not used: %s", error)
        else:
            return body
    return msgspec.json.encode({"instances": [example_instance(schema)]})


def _logged_instances(folder: Path, mlmodel: dict[str, Any], schema: Schema) -> list[list[Any]]:
    """What may serve as an example, best first: the logged input example, then the reference sample."""
    found = []
    info = mlmodel.get("saved_input_example_info") or {}
    if info.get("artifact_path"):
        from mlflow.models import Model

        try:
            example = Model.load(str(folder)).load_input_example(str(folder))
            found.append(example_to_instances(example, schema))
        except Exception as error:  # noqa: BLE001  # whatever MLflow could write and not read again
            log.warning("the logged input example cannot be read: %s", type(error).__name__)
    reference = folder / "reference.json"
    if reference.exists():
        try:
            found.append(msgspec.json.decode(reference.read_bytes())["instances"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            log.warning('reference.json is not of the form {"instances": […]}')
    return [instances for instances in found if instances]


def example_to_instances(example: Any, schema: Schema) -> list[Any]:
    """Returns an MLflow input example as the instances of a request body.

    Args:
        example: a DataFrame, an array, a dict of arrays or of values, or a list.
        schema: of the model it was logged with.
    """
    import numpy as np
    import pandas as pd

    if isinstance(example, pd.DataFrame):
        binary = [c.name for c in schema.columns if c.type.kind is Kind.BINARY and c.name in example]
        rows = example.astype(object).where(example.notna(), None)
        for name in binary:
            rows[name] = rows[name].map(lambda v: base64.b64encode(v).decode() if v is not None else v)
        if schema.form is Form.RECORD:
            return [_plain(row) for row in rows.to_dict("records")]
        if schema.form is Form.ARRAY:
            return [_plain(list(row)) for row in rows.itertuples(index=False)]
        return [_plain(value) for value in rows.iloc[:, 0]]
    if isinstance(example, np.ndarray):
        return list(example.tolist())
    if isinstance(example, dict):
        values = {key: np.asarray(value) for key, value in example.items()}
        if all(value.ndim for value in values.values()):
            n_rows = min(len(value) for value in values.values())
            return [{key: value[i].tolist() for key, value in values.items()} for i in range(n_rows)]
        return [_plain(example)]
    return [_plain(item) for item in example] if isinstance(example, list) else [_plain(example)]


def _plain(value: Any) -> Any:
    """Python's own types of NumPy's and pandas'."""
    import numpy as np
    import pandas as pd

    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (pd.Timestamp, dt.datetime)):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def _warm_up(runtime: NativeRuntime, schema: Schema, examples: bytes, resolved: Resolved) -> None:
    inputs, params = JsonDecoder(schema, MAX_EXAMPLES).predict(examples)
    try:
        runtime.predict(inputs, params)
    except Exception as error:
        log.exception("%s version %s does not predict", resolved.name, resolved.version)
        raise ModelRefused(
            f"{resolved.name!r} version {resolved.version} cannot predict its own example: "
            f"{type(error).__name__}"
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


def _libraries() -> dict[str, str]:
    out = {}
    for name in LIBRARIES:
        try:
            out[name] = library_version(name)
        except PackageNotFoundError:
            continue
    return out
