"""Finds the versions to serve with MLflow's own client."""

import logging
from difflib import get_close_matches
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from serving.errors import ModelNotFound, PrepareError, RegistryUnreachable
from serving.prepare.registry.access import explain_mlflow, refused, unreachable
from serving.prepare.registry.lookup import refuse_missing_database
from serving.prepare.registry.resolution import (
    Version,
    Wanted,
    in_stage,
    latest_moved,
    namesake_stage,
    resolved,
    wanted,
)
from serving.settings import Settings

log = logging.getLogger("serving.registry")


def resolve(settings: Settings) -> Wanted:
    """Returns the versions to serve. The champion is the pinned version, else that of the stage, else of the alias.

    If the model lacks the alias, the legacy stage of that name counts.

    Raises:
        RegistryUnreachable: no answer, or a rejected login.
        ModelNotFound: no such model, version, alias or stage; or a prompt, which MLflow keeps in the same tables.
    """
    refuse_missing_database(settings)
    try:
        client = MlflowClient(settings.tracking_uri, registry_uri=settings.registry)
        return _resolve(client, settings)
    except PrepareError:
        raise
    except MlflowException as error:
        raise _from_mlflow(error, settings) from error
    except Exception as error:  # any, from a database driver or a cloud's client
        what = (
            f"the module {error.name} is not installed"
            if isinstance(error, ImportError)
            else type(error).__name__
        )
        raise RegistryUnreachable(
            f"the registry {settings.registry} cannot be read: {what}; check MLFLOW_TRACKING_URI, and that its driver "
            "is installed"
        ) from error


def _resolve(client: MlflowClient, settings: Settings) -> Wanted:
    name = settings.model_name
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise _no_such_model(client, settings) from None
    if settings.model_version is not None:
        version, because = str(settings.model_version), "pinned by SERVING_MODEL_VERSION"
    elif settings.model_stage is not None:
        version, because = _by_stage(client, settings, settings.model_stage)
    elif settings.model_alias in model.aliases:
        version, because = str(model.aliases[settings.model_alias]), f"alias {settings.model_alias!r}"
    else:
        stage = namesake_stage(settings.model_alias)
        if stage is None or not in_stage(all_versions(client, name), stage):
            aliases = ", ".join(sorted(model.aliases)) or "none"
            raise ModelNotFound(
                f"no version of model {name!r} has the alias {settings.model_alias!r} "
                f"(aliases set: {aliases}); set it, or choose with SERVING_MODEL_ALIAS"
            )
        version, because = _by_stage(client, settings, stage)
    try:
        found = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ModelNotFound(
            f"model {name!r} has no version {version} ({because}); register it, or choose another"
        ) from None
    return wanted(
        resolved(to_version(found), because),
        model.aliases,
        model.tags,
        settings,
        lambda number: to_version(client.get_model_version(name, number)),
    )


def to_version(found: Any) -> Version:
    """Returns MLflow's entity as a plain tuple."""
    return Version(*(getattr(found, field) for field in Version._fields))


def all_versions(client: MlflowClient, name: str) -> list[Version]:
    """Returns every version of a model."""
    quoted = name.replace("'", "''")
    versions: list[Version] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{quoted}'", page_token=token)
        versions += map(to_version, page)
        token = page.token
        if not token:
            return versions


def _by_stage(client: MlflowClient, settings: Settings, stage: str) -> tuple[str, str]:
    versions = in_stage(all_versions(client, settings.model_name), stage)
    if not versions:
        raise ModelNotFound(
            f"no version of model {settings.model_name!r} is in the stage {stage!r} (SERVING_MODEL_STAGE); "
            "move one there, or follow an alias"
        )
    chosen, because = latest_moved(versions, stage)
    return str(chosen.version), because


def _no_such_model(client: MlflowClient, settings: Settings) -> ModelNotFound:
    hint = suggest_name(client, settings.model_name)
    return ModelNotFound(
        f"no model {settings.model_name!r} in the registry {settings.registry} (SERVING_MODEL_NAME){hint}"
    )


def suggest_name(client: MlflowClient, name: str) -> str:
    """Returns `; did you mean 'churn'?` for the name of no model; empty if no model has a similar name."""
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    near = get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _from_mlflow(error: MlflowException, settings: Settings) -> PrepareError:
    if error.error_code in (
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    ):
        return refused(settings)
    if settings.tracking_uri.startswith("databricks-uc"):
        return unreachable(
            settings, "Unity Catalog is not a tracking server; set MLFLOW_TRACKING_URI=databricks"
        )
    if "Databricks credential" in str(error):
        return unreachable(
            settings,
            "no login found; set DATABRICKS_HOST and DATABRICKS_TOKEN, or name a profile: databricks://PROFILE",
        )
    # The client's message may quote the server.
    reason = explain_mlflow(error, settings.registry) or f"{type(error).__name__} {error.error_code}"
    return unreachable(settings, reason)
