"""The prepared model on disk: the contract between preparing and serving.

A prepared model is an ordinary entry of the BentoML model store, one per MLflow version, digest and
library versions:

    $BENTOML_HOME/models/churn/3-0f1e2d3c4b5a/
        model.yaml       BentoML's own
        manifest.json    `Manifest`
        examples.json    `{"instances": […]}`: for warm-up and documentation
        reference.json   the same form: a sample of the training inputs, if one was logged
        drift.json       the bins in which drift is counted, frozen from the reference
        compiled/        the compiled pipeline, if there is one
        mlflow/          the MLflow model, for the native runtime

The finished folder is renamed into place, so nobody sees half of one.
"""

import contextlib
import datetime as dt
import fcntl
import glob
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import msgspec
import yaml

from serving.model.schema import Schema, parse_schema

FORMAT = 7
"""Version of this layout; models of another format are prepared again."""


class Parity(msgspec.Struct, frozen=True):
    """The result of comparing a compiled model with its original."""

    rows: int
    """Rows that both answered."""
    rows_of_sample: int
    """Of `rows`: real ones, from the example and the reference sample; the others were generated from them."""
    rows_refused: int
    """Rows that both refused."""
    rows_on_thresholds: int
    """Of `rows`: those on, just below or just above split thresholds."""
    max_abs_difference: float
    """The largest difference of a probability or value, see `serving.prepare.checks.parity.MAX_DIFFERENCE`."""


class PyfuncAnswer(StrEnum):
    """What `mlflow.pyfunc` returns for a classifier."""

    LABELS = "labels"
    PROBABILITIES = "probabilities"
    """Of all classes."""
    RAW = "raw"
    """A booster's own output: of two classes, the probability of the second one; else of all."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a prepared model."""

    format: int = FORMAT
    name: str
    version: str
    run_id: str | None
    source_key: str
    """Hash of the version's entry in the registry; distinguishes the same version of two registries."""
    digest: str
    """SHA-256 over the names and contents of the model's artifacts."""
    inputs: str
    """The signature's inputs, as MLflow writes them (JSON)."""
    outputs: str | None
    params: str | None
    nulls: dict[str, str]
    """The model's missing value by column, if it differs from pandas' default."""
    flavors: list[str]
    task: str
    classes: list[Any] | None
    has_probabilities: bool
    runtime: str
    """`compiled`, `mixed` (some steps natively) or `native`."""
    native_reason: str | None
    """Why it is not compiled, or not entirely."""
    native_steps: list[str]
    """Of a mixed runtime: the names of the pipeline's steps that stay in their own library."""
    parity: Parity | None
    """The result of comparing the compiled model with the original."""
    native_seconds: float
    """Seconds per row to predict its examples in the original library, measured while preparing."""
    is_rowwise: bool
    """Whether a row's answer is independent of the other rows, so that requests may share a call."""
    is_per_row: bool
    """Whether it returned one result per row of its examples."""
    writers_code: str | None
    """What in the model's files is, or runs, its author's code; None for plain data."""
    own_types: list[str]
    """Types trusted through `SERVING_TRUSTED_TYPES`."""
    preprocessing_sha256: str | None
    libraries: dict[str, str]
    prepared_at: str
    mlflow_version: str
    """The version that logged the model; empty if unknown."""
    pyfunc: PyfuncAnswer
    """What `mlflow.pyfunc` returns for a classifier."""
    semantic_version: str | None = None
    """Its tag when it was prepared, such as `2.1.0`; `State.semantic_versions` has later ones."""


class Prepared(msgspec.Struct, frozen=True):
    """A prepared model in the store."""

    folder: Path
    manifest: Manifest

    @property
    def tag(self) -> str:
        """BentoML's tag, `name:version`."""
        return f"{self.folder.parent.name}:{self.folder.name}"

    @property
    def schema(self) -> Schema:
        """The inputs' schema."""
        return parse_schema(self.manifest.inputs, self.manifest.params, self.manifest.nulls)

    @property
    def examples(self) -> bytes:
        """A request body with at least one row."""
        return (self.folder / "examples.json").read_bytes()


def bentoml_home() -> Path:
    """Returns BentoML's folder. Source: BentoML's documentation of `BENTOML_HOME`."""
    return Path(os.environ.get("BENTOML_HOME", "~/bentoml")).expanduser()


STORE_VARIABLE = "MODEL_STORE"
"""In the environment of a sealed service's processes: the model store in its Bento."""


def model_store() -> Path:
    """Returns the folder of prepared models."""
    return Path(os.environ.get(STORE_VARIABLE) or bentoml_home() / "models")


def store_name(model_name: str) -> str:
    """Returns the BentoML name of a registered model.

    BentoML accepts 63 lowercase characters of few kinds, MLflow nearly anything; a changed name gets a hash to keep
    models apart.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", model_name.lower()).strip("._-")
    if name == model_name and len(name) <= 63:
        return name
    return f"{name[:50].rstrip('._-') or 'model'}-{hashlib.sha256(model_name.encode()).hexdigest()[:8]}"


def store_version(manifest: Manifest) -> str:
    """Returns the BentoML version of an MLflow version.

    It differs for the same number in another registry, and for other libraries or another version of this code:
    services that share a store must not replace each other's models.
    """
    identity = (FORMAT, manifest.digest, manifest.source_key, sorted(manifest.libraries.items()))
    return f"{manifest.version}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:12]}"


def open_prepared(tag: str) -> Prepared:
    """Opens a prepared model by its tag.

    Raises:
        OSError: there is none.
        msgspec.MsgspecError: its manifest is of another format.
    """
    name, _, version = tag.partition(":")
    return _open(model_store() / name / version)


def is_prepared(tag: str) -> bool:
    """Whether there is a prepared model of this tag."""
    name, _, version = tag.partition(":")
    return (model_store() / name / version / "manifest.json").exists()


def _open(folder: Path) -> Prepared:
    return Prepared(folder, msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest))


def find_all_prepared(model_name: str, version: str) -> Iterator[Prepared]:
    """Yields the prepared models of a version: of several registries, or for several libraries."""
    for folder in sorted((model_store() / store_name(model_name)).glob(f"{glob.escape(version)}-*")):
        try:
            prepared = _open(folder)
        except (OSError, msgspec.MsgspecError):
            continue
        if prepared.manifest.format == FORMAT:
            yield prepared


def find_prepared(
    model_name: str, version: str, source_key: str, libraries: dict[str, str] | None = None
) -> Prepared | None:
    """Returns the prepared model of a version as the registry describes it, if there is one.

    Args:
        model_name: the registered model.
        version: MLflow's number.
        source_key: as in the manifest.
        libraries: if given, it must have been prepared with these.
    """
    for prepared in find_all_prepared(model_name, version):
        manifest = prepared.manifest
        if manifest.source_key == source_key and libraries in (None, manifest.libraries):
            return prepared
    return None


@contextlib.contextmanager
def preparing(model_name: str) -> Iterator[Path]:
    """Yields an empty folder to prepare in; one process at a time per model, the others wait.

    The folder is on the store's file system, and deleted afterwards unless `publish` took it. Leftovers of killed
    processes are removed.
    """
    aside = bentoml_home() / "preparing"
    aside.mkdir(parents=True, exist_ok=True)
    with (aside / f"{store_name(model_name)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in aside.glob(f"{store_name(model_name)}@*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{store_name(model_name)}@", suffix=".tmp", dir=aside))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fetched_folder(model_name: str, source_key: str) -> Path:
    """Returns the folder for a version's fetched files, which survives an interrupted attempt.

    Leftovers of other versions are removed. Call it only within `preparing`.
    """
    key = hashlib.sha256(source_key.encode()).hexdigest()[:12]
    fetched = bentoml_home() / "preparing" / f"{store_name(model_name)}@{key}.fetched"
    for other in fetched.parent.glob(f"{store_name(model_name)}@*.fetched"):
        if other != fetched:
            shutil.rmtree(other, ignore_errors=True)
    return fetched


def publish(folder: Path, manifest: Manifest) -> Prepared:
    """Writes the manifest into a finished folder and moves it into the store.

    Raises:
        OSError: the disk is full or not writable; the store is unchanged.
    """
    name, version = store_name(manifest.name), store_version(manifest)
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    (folder / "model.yaml").write_text(
        yaml.safe_dump(_bentoml_info(name, version, manifest), sort_keys=False)
    )
    for file in sorted(folder.rglob("*")):
        _flush(file)
    folder.chmod(0o755)  # mkdtemp's folder is private, but other users, such as a container's, must read it
    target = model_store() / name / version
    target.parent.mkdir(parents=True, exist_ok=True)
    # An earlier copy may exist that has lost some of its files.
    before = folder.with_suffix(".before.tmp")
    if target.exists():
        target.rename(before)
    folder.rename(target)
    shutil.rmtree(before, ignore_errors=True)
    _flush(target.parent)
    with contextlib.suppress(OSError):  # BentoML recreates it if it is missing
        aside = target.parent / f".latest-{os.getpid()}"
        aside.write_text(version)
        aside.replace(target.parent / "latest")
    return Prepared(target, manifest)


def _flush(path: Path) -> None:
    """Makes content survive a crash of the machine, and reports a full disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bentoml_info(name: str, version: str, manifest: Manifest) -> dict[str, Any]:
    """Metadata for `bentoml models list` and `get`. Source: bentoml/_internal/models/model.py, ModelInfo."""
    return {
        "name": name,
        "version": version,
        "module": "",
        "labels": {
            "mlflow.name": manifest.name,
            "mlflow.version": manifest.version,
            "mlflow.run_id": manifest.run_id or "",
            "digest": manifest.digest,
        },
        "options": {},
        "metadata": {"task": manifest.task, "runtime": manifest.runtime, "flavors": manifest.flavors},
        "context": {
            "framework_name": "",
            "framework_versions": {},
            "bentoml_version": library_version("bentoml"),
            "python_version": ".".join(map(str, sys.version_info[:3])),
        },
        "signatures": {},
        "api_version": "v1",
        "creation_time": dt.datetime.fromisoformat(manifest.prepared_at),
    }
