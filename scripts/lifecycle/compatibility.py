"""Checks whether a version accepts the requests that services answer now, as their gate does."""

from typing import TYPE_CHECKING

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.moves import previous_version
from serving.errors import PrepareError
from serving.prepare.registry.resolution import FORCE_TAG, is_forced

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

    from scripts.lifecycle.registry import RegisteredModel
    from serving.model.schema import Schema

MAX_REASONS = 3


def schema_of(signature: "ModelSignature | None") -> "Schema | None":
    """Returns the schema of requests by a signature; None without one.

    Raises:
        ModelRefused: it has types that services do not support.
    """
    from serving.model.schema import parse_schema

    columns = signature.to_dict() if signature is not None else {}
    return parse_schema(columns["inputs"], columns.get("params")) if columns.get("inputs") else None


def why_refused(old: "Schema", new: "Schema") -> str:
    """Returns why a new signature rejects requests that the old one accepts, in at most three reasons; empty if none."""
    from serving.prepare.checks.compatibility import find_incompatibilities  # most commands do without

    refused = find_incompatibilities(old, new)
    more = f"; and {len(refused) - MAX_REASONS} more" if len(refused) > MAX_REASONS else ""
    return "; ".join(refused[:MAX_REASONS]) + more


def why_versions_differ(name: str, before: str, version: str) -> str:
    """The same for two versions of a model; empty, too, if the signature of one is unknown.

    Raises:
        MlflowException: the registry does not answer.
    """
    from mlflow.models import get_model_info

    try:
        old, new = (schema_of(get_model_info(f"models:/{name}/{one}").signature) for one in (before, version))
    except PrepareError:
        return ""
    return why_refused(old, new) if old is not None and new is not None else ""


def check_requests(model: "RegisteredModel", version: str) -> None:
    """Checks that a promotion breaks no caller's requests, as far as is known here; services check again.

    Raises:
        LifecycleError: it does, and the version is not tagged as forced.
    """
    before = model.current
    if before in {None, version} or is_forced(model.versions[version].tags):
        return
    if previous_version(model.moves, model.selector, before) == version:
        return  # it has answered these callers before
    try:
        with model.asking("the signatures could not be read"):
            why = why_versions_differ(model.name, before, version)
    except LifecycleError:
        return  # such as an artifact store that cannot be reached from here
    if why:
        raise LifecycleError(
            f"version {version} rejects requests that version {before} in production accepts: {why}; tell the callers, "
            "then promote it with --force"
        )


def force(client: "MlflowClient", name: str, version: str) -> None:
    """Tags a version so that services take it although it rejects requests that are answered now.

    Raises:
        MlflowException: the registry rejects the tag.
    """
    client.set_model_version_tag(name, version, FORCE_TAG, "true")
