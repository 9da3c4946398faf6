"""Finds the model to check: a version in the registry, a logged model, one of a run, or a folder."""

import argparse
import contextlib
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.cli import choose_selector
from scripts.lifecycle.registry import RegisteredModel
from serving.errors import PrepareError
from serving.prepare.registry.lookup import refuse_missing_database
from serving.prepare.registry.resolution import Resolved, Version, in_stage, latest_moved, resolved
from serving.settings import Settings

FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, runs:/RUN_ID/NAME, or a folder with an MLmodel file"

_NAMED = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[^/@]+)|@(?P<alias>[^/@]+))")
_NAME = re.compile(r"[^/@]*[^/@.]")
_UNREGISTERED = re.compile(r"models:/m-[\w-]+|runs:/\w+/.+")


class Source(NamedTuple):
    """What is checked, and what it is compared with."""

    model: Resolved
    production: Resolved | None
    """None if there is nothing to compare with."""
    not_compared: str = ""
    """Why there is nothing to compare with."""


def find_source(options: argparse.Namespace, settings: Settings) -> Source:
    """Returns the model that the command line names.

    Raises:
        LifecycleError: it names none.
    """
    text: str = options.model
    if text.isdecimal() and not Path(text).exists():
        text = f"models:/{options.name or settings.model_name}/{text}"
    named = _NAMED.fullmatch(text)
    if named is not None:
        name = named["name"]
        if options.name not in {None, name}:
            raise LifecycleError(f"{text} is a version of {name!r}, not of {options.name!r} (--name)")
        model = RegisteredModel(settings, name, choose_selector(options, settings))
        version = _version(model, named["version"], named["alias"])
        return _with_production(resolved(version, text), model)
    if _UNREGISTERED.fullmatch(text):
        _refuse_missing_registry(settings)
        uri = text
    elif Path(text.removeprefix("file://"), "MLmodel").is_file():
        uri = str(Path(text.removeprefix("file://")).resolve())
    else:
        raise LifecycleError(
            _without_version(text, options, settings) or f"{text!r} is not a model; expected {FORMS}"
        )
    key = hashlib.sha256(uri.encode()).hexdigest()
    found = Resolved(options.name or "model", "0", None, key, "to be checked", unregistered_uri=uri)
    if options.name is None:
        return Source(found, None, "no registered model is given with --name")
    selector = choose_selector(options, settings)
    try:
        return _with_production(found, RegisteredModel(settings, options.name, selector))
    except LifecycleError as error:
        return Source(found, None, str(error))


def _refuse_missing_registry(settings: Settings) -> None:
    try:
        refuse_missing_database(settings)
    except PrepareError as error:
        raise LifecycleError(str(error)) from None


def _without_version(text: str, options: argparse.Namespace, settings: Settings) -> str:
    """Returns an error if a text is the name of a registered model without a version; else empty."""
    name = text.removeprefix("models:/")
    if _NAME.fullmatch(name):
        with contextlib.suppress(LifecycleError):
            versions = RegisteredModel(settings, name, choose_selector(options, settings)).versions
            if versions:
                newest = max(versions, key=int)
                return f"{name!r} is a registered model; name one of its versions: models:/{name}/{newest} (the newest), or models:/{name}@ALIAS"
    return ""


def _version(model: RegisteredModel, version: str | None, alias: str | None) -> Version:
    if alias is not None:
        if alias not in model.aliases:
            there = ", ".join(sorted(model.aliases)) or "none"
            raise LifecycleError(
                f"no version of {model.name!r} has the alias {alias!r} (aliases set: {there})"
            )
        return model.versions[model.aliases[alias]]
    assert version is not None
    if version == "latest" and model.versions:
        return model.versions[max(model.versions, key=int)]
    staged = in_stage(model.versions.values(), version)
    if staged:
        return latest_moved(staged, version)[0]
    model.check_version(version)
    return model.versions[version]


def _with_production(found: Resolved, model: RegisteredModel) -> Source:
    if model.current is None:
        return Source(found, None, f"{model.where} is not set")
    if found.unregistered_uri is None and found.version == model.current:
        return Source(found, None, f"version {model.current} is itself in production")
    return Source(found, resolved(model.versions[model.current], model.where))
