"""Registers a trained model, and tells whether one is registered."""

import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Set
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.lifecycle.compatibility import force, why_versions_differ
from scripts.lifecycle.connection import NO_ALIASES, connect, one_line
from scripts.lifecycle.moves import Selector, encode, new_move
from scripts.lifecycle.semantic_versions import Level, SemanticVersion, assign
from scripts.training import TrainingError
from scripts.training.storing import storing
from serving.model.digests import DIGEST_TAG, digest_of
from serving.model.hook import DIGEST_KEY, PREPROCESSING_FILE, preprocessing_digest
from serving.prepare.registry.access import is_older
from serving.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import ActiveRun, MlflowClient
    from mlflow.models import ModelSignature
    from sklearn.pipeline import Pipeline

REFERENCE_FILE = "reference.json"
"""The reference sample's name among the model's artifacts, beside `MLmodel`."""

MODEL_PACKAGES = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "skops")
"""What the model needs to be loaded. To find out, MLflow would load it in a new process, for seconds, and add
whatever that imports."""

SQLITE_PREFIX = "sqlite:///"

COUNT_VERSIONS = """
    SELECT count(*) FROM model_versions WHERE name = ? AND current_stage <> 'Deleted_Internal'
"""


class Trained(NamedTuple):
    """The result of a training."""

    pipeline: "Pipeline"
    signature: "ModelSignature"
    input_example: "pd.DataFrame"
    reference: dict[str, Any]
    metrics: dict[str, float]
    tags: dict[str, str]
    why_no_better: str
    """Why it may be no better than the baseline; empty if it is better."""


def has_version(settings: Settings, name: str) -> bool:
    """True if the registry has a model of that name with at least one version.

    Raises:
        LifecycleError: the registry does not answer.
    """
    return sqlite_has_version(settings.registry, name) or _client_has_version(settings, name)


def sqlite_has_version(uri: str, name: str) -> bool:
    """True if a SQLite registry surely has a version; if False, MLflow has to be asked.

    This runs at every start, and importing MLflow takes seconds. Source: the table of
    `mlflow.store.model_registry.dbmodels.models.SqlModelVersion`.
    """
    file = Path(uri.removeprefix(SQLITE_PREFIX))
    if not uri.startswith(SQLITE_PREFIX) or not file.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return bool(database.execute(COUNT_VERSIONS, (name,)).fetchone()[0])
    except sqlite3.Error:
        return False


def _client_has_version(settings: Settings, name: str) -> bool:
    quote = '"' if "'" in name else "'"
    client = connect(settings)
    return bool(client.search_model_versions(f"name={quote}{name}{quote}", max_results=1))


def check_names(name: str, alias: str | None) -> None:
    """Checks names that MLflow would reject only after the training.

    Raises:
        TrainingError: the name or the alias is invalid. Source: `mlflow.utils.validation`.
    """
    if not name.strip() or "/" in name or ":" in name:
        raise TrainingError(
            f"{name!r} cannot be a model's name: it must not be empty, or have a slash or a colon"
        )
    if alias is None:
        return
    if not re.fullmatch(r"[\w-]{1,255}", alias, re.ASCII):
        raise TrainingError(f"{alias!r} cannot be an alias: letters, digits, _ and - only")
    if re.fullmatch(r"latest|v[0-9]+", alias, re.IGNORECASE):
        raise TrainingError(f"{alias!r} cannot be an alias: MLflow reserves it for versions")


def check_aliases(client: "MlflowClient", name: str, alias: str) -> None:
    """Checks that the registry has aliases.

    Raises:
        TrainingError: it has none.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if is_older(error):
            raise TrainingError(
                f"{NO_ALIASES}; leave out --promote, then run promote.py VERSION --stage Production"
            ) from None
        # Nothing has the alias yet.


class Wishes(NamedTuple):
    """Options of a registration."""

    alias: str
    """The alias that services follow."""
    is_promoted: bool = False
    """Whether to move the alias to the new version."""
    is_forced: bool = False
    """Whether to move it even if the version rejects requests that are answered now."""
    semantic_version: "SemanticVersion | Level | None" = None
    """None derives it."""
    own_types: Set[str] = frozenset()
    """Types that the service trusts by `SERVING_TRUSTED_TYPES`."""


class Registered(NamedTuple):
    """A new version."""

    version: int
    said: str
    """Its semantic version, and why."""
    why_not_promoted: str
    """Empty if it was promoted, or was not meant to be."""


def register(client: "MlflowClient", name: str, trained: Trained, wishes: Wishes) -> Registered:
    """Logs and registers the model, and moves the alias if that is wished.

    The version appears, and the alias moves, only once every file is stored. The alias does not move to a version whose
    signature services would reject.

    Args:
        client: of the registry.
        name: of the registered model.
        trained: what to log.
        wishes: the options.

    Raises:
        LifecycleError: the registry rejects the model.
    """
    import mlflow

    with one_line("the model could not be registered"):
        if not os.environ.get("MLFLOW_EXPERIMENT_NAME") and not os.environ.get("MLFLOW_EXPERIMENT_ID"):
            mlflow.set_experiment(name)
        with mlflow.start_run(tags=trained.tags) as run:
            mlflow.log_params(trained.tags)
            mlflow.log_metrics(trained.metrics)
            with storing(run.info.artifact_uri):
                logged = log_model(client, trained, run, wishes.own_types)
                digest = logged_digest(logged)
        tags = trained.tags | {DIGEST_TAG: digest}
        number = create_version(client, name, logged, run.info.run_id, tags)
        before = client.get_registered_model(name).aliases.get(wishes.alias)
        production = str(before) if before is not None else None
        said = assign(client, name, str(number), production, wishes.semantic_version)
        if not wishes.is_promoted:
            return Registered(number, said, "")
        broken = why_versions_differ(name, production, str(number)) if production else ""
        if broken and not wishes.is_forced:
            why = f"it rejects requests that version {production} in production accepts: {broken}"
            return Registered(number, said, why)
        if broken:
            force(client, name, str(number))
        _promote(client, name, Selector("alias", wishes.alias), production, str(number))
        return Registered(number, said, "")


def _promote(
    client: "MlflowClient", name: str, selector: Selector, production: str | None, version: str
) -> None:
    """Moves the alias to a version, and records the move for rollbacks."""
    client.set_registered_model_alias(name, selector.name, version)
    move = new_move("promote", name, selector, source=production, target=version, why="train.py --promote")
    client.set_model_version_tag(name, version, move.tag, encode(move))


class Logged(NamedTuple):
    """A model's files at the tracking server."""

    uri: str
    model_id: str | None
    """None before MLflow 3, whose runs have the files."""


def log_model(client: "MlflowClient", trained: Trained, run: "ActiveRun", own_types: Set[str]) -> Logged:
    """Logs the pipeline with signature, example, preprocessing.py and reference.

    Raises:
        TrainingError: the pipeline has types that the service would reject.
    """
    import mlflow.sklearn
    from mlflow.models import Model
    from skops import io

    from serving.runtime.trusted import Trust

    types = io.get_untrusted_types(data=io.dumps(trained.pipeline))
    trust = Trust(own_types, has_hook=True)
    foreign = [name for name in types if not trust.covers(name)]
    if foreign:
        raise TrainingError(
            f"the service would reject the pipeline for these types: {', '.join(foreign)}; if they are yours, set "
            f"SERVING_TRUSTED_TYPES={','.join([*sorted(own_types), *foreign])} for this command and the service"
        )
    saved: dict[str, Any] = {
        "signature": trained.signature,
        "input_example": trained.input_example,
        "code_paths": [str(PREPROCESSING_FILE)],
        "pip_requirements": [f"{package}=={version(package)}" for package in MODEL_PACKAGES],
        "skops_trusted_types": types,
    }
    metadata = {DIGEST_KEY: preprocessing_digest()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, REFERENCE_FILE)
        file.write_text(json.dumps(trained.reference, allow_nan=False))
        if has_logged_models(client, run.info.experiment_id):
            model = mlflow.sklearn.log_model(trained.pipeline, name="model", metadata=metadata, **saved)
            client.log_model_artifact(model.model_id, str(file))
            return Logged(f"models:/{model.model_id}", str(model.model_id))
        of_run = Model("model", run.info.run_id, metadata=metadata)
        target = Path(folder, "model")
        mlflow.sklearn.save_model(trained.pipeline, str(target), mlflow_model=of_run, **saved)
        file.rename(target / REFERENCE_FILE)
        client.log_artifacts(run.info.run_id, str(target), "model")
    return Logged(f"{run.info.artifact_uri}/model", None)


def has_logged_models(client: "MlflowClient", experiment_id: str) -> bool:
    """True if the tracking server keeps models apart from runs, as MLflow does since 3.0."""
    from mlflow.exceptions import MlflowException

    try:
        client.search_logged_models([experiment_id], max_results=1)
    except MlflowException as error:
        if not is_older(error):
            raise
        return False
    return True


def logged_digest(logged: Logged) -> str:
    """Returns the digest of a logged model's files, as the artifact store returns them."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        return digest_of(Path(mlflow.artifacts.download_artifacts(logged.uri, dst_path=folder)))


def create_version(
    client: "MlflowClient", name: str, logged: Logged, run_id: str, tags: dict[str, str]
) -> int:
    """Registers a logged model under a name, which is created if needed; returns the version's number."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        name, logged.uri, run_id=run_id, tags=tags, model_id=logged.model_id
    )
    return int(created.version)
