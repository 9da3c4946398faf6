"""Finds the reference of a version: of its prepared model on this machine, else of the registry's version."""

from typing import NamedTuple

import msgspec

from scripts.checking.trial import trial
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.moves import Selector
from scripts.lifecycle.registry import RegisteredModel
from serving.errors import PrepareError
from serving.model.prepared import Prepared, find_all_prepared
from serving.model.schema import Schema
from serving.monitoring.drift.reference import Reference, read_reference
from serving.prepare.registry.resolution import resolved
from serving.settings import Settings


class Found(NamedTuple):
    """What a version's rows are compared with."""

    schema: Schema
    reference: Reference


def find_reference(name: str, version: str, settings: Settings) -> Found:
    """Returns the reference of a version.

    Raises:
        LifecycleError: it has none that can be had here.
    """
    there = list(find_all_prepared(name, version))
    # Of several registries, different models may have the same name and version: then the registry decides.
    if len({prepared.manifest.digest for prepared in there}) == 1:
        try:
            return _read(max(there, key=lambda prepared: prepared.manifest.prepared_at))
        except (OSError, msgspec.MsgspecError):
            pass  # it has lost files, and is prepared again
    why = "several models of this name and version" if there else "no such model"
    try:
        return _prepare(name, version, settings)
    except (LifecycleError, PrepareError) as error:
        raise LifecycleError(
            f"no reference of {name!r} version {version}: {why} prepared here (BENTOML_HOME), and from the registry: {error}"
        ) from None


def _prepare(name: str, version: str, settings: Settings) -> Found:
    """Prepares the registry's version as a service does, and leaves nothing behind."""
    model = RegisteredModel(settings, name, Selector("alias", settings.model_alias))
    model.check_version(version)
    with trial(settings) as attempt:
        return _read(attempt.find_or_prepare(resolved(model.versions[version], "for its reference")))


def _read(prepared: Prepared) -> Found:
    return Found(prepared.schema, read_reference(prepared.folder))
