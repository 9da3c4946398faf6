"""Rules for the versions to serve, shared by both ways to query the registry."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from serving.model.digests import DIGEST_TAG
from serving.settings import Settings

TAG_PREFIX = "serving."
"""Prefix of the registry's tags that the service reads."""

FORCE_TAG = "serving.force"
"""Tag of a version: `true` serves it even if it rejects requests of the previous version."""

SEMANTIC_VERSION_TAG = "serving.semantic_version"
"""Tag of a version: `2.1.0`. `train.py` and `promote.py` set it."""

CHALLENGER_PERCENT_TAG = "serving.challenger_percent"
SHADOW_PERCENT_TAG = "serving.shadow_percent"
AUTOPILOT_TAG = "serving.autopilot"
"""Tags of the registered model."""

STAGES = ("Production", "Staging", "Archived")


class Resolved(msgspec.Struct, frozen=True):
    """A version in the registry."""

    name: str
    version: str
    run_id: str | None
    source_key: str
    because: str
    """Reason for the choice, for the log."""
    updated: int | None = None
    """Last change of the registry's entry, in milliseconds since 1970."""
    tags: dict[str, str] = {}
    """The version's tags that the gate reads."""
    semantic_version: str | None = None
    """Not part of the fingerprint: a version that gets one is not prepared again."""
    unregistered_uri: str | None = None
    """MLflow's URI, or the path, of an unregistered model."""

    @property
    def uri(self) -> str:
        """MLflow's URI of its files."""
        return self.unregistered_uri or f"models:/{self.name}/{self.version}"

    @property
    def title(self) -> str:
        """Name for messages."""
        return self.unregistered_uri or f"{self.name!r} version {self.version}"

    @property
    def fingerprint(self) -> str:
        """Changes with anything about the version."""
        return f"{self.source_key}:{self.updated}:{sorted(self.tags.items())}"


def is_forced(tags: Mapping[str, str]) -> bool:
    """Whether a version's tags accept that it rejects some current requests."""
    return tags.get(FORCE_TAG, "").lower() == "true"


class Wanted(msgspec.Struct, frozen=True):
    """The versions that the registry names for serving."""

    champion: Resolved
    challenger: Resolved | None = None
    challenger_percent: float = 0
    shadow: Resolved | None = None
    shadow_percent: float = 0
    autopilot: str | None = None
    """Value of the tag that lets the service itself promote or remove them; None without the tag."""


class Version(NamedTuple):
    """A model version, with the names of MLflow's entity."""

    name: str
    version: str
    source: str
    run_id: str | None
    creation_timestamp: int
    last_updated_timestamp: int | None
    current_stage: str
    tags: Mapping[str, str] = MappingProxyType({})


def resolved(version: Version, because: str) -> Resolved:
    """Returns the version with its key in the model store."""
    # Distinguishes equal version numbers of other registries, and of a model that was deleted and registered again.
    identity = (
        f"{version.name}\0{version.version}\0{version.source}\0{version.run_id}\0{version.creation_timestamp}"
    )
    key = hashlib.sha256(identity.encode()).hexdigest()
    updated = version.last_updated_timestamp
    ours = {name: version.tags[name] for name in (DIGEST_TAG, FORCE_TAG) if name in version.tags}
    called = version.tags.get(SEMANTIC_VERSION_TAG)
    return Resolved(version.name, str(version.version), version.run_id, key, because, updated, ours, called)


def wanted(
    champion: Resolved,
    aliases: Mapping[str, str],
    tags: Mapping[str, str],
    settings: Settings,
    get_version: Callable[[str], Version],
) -> Wanted:
    """Returns the champion with its challenger and shadow.

    Args:
        champion: the chosen version.
        aliases: of the registered model, with their versions.
        tags: of the registered model.
        settings: name the aliases and the shares.
        get_version: returns the registry's entry of a version.
    """

    def accompanying(alias: str | None) -> Resolved | None:
        number = aliases.get(alias) if alias else None
        return resolved(get_version(str(number)), f"alias {alias!r}") if number is not None else None

    return Wanted(
        champion,
        accompanying(settings.challenger_alias),
        percent(tags, CHALLENGER_PERCENT_TAG, settings.challenger_percent),
        accompanying(settings.shadow_alias),
        percent(tags, SHADOW_PERCENT_TAG, settings.shadow_percent),
        tags.get(AUTOPILOT_TAG),
    )


def percent(tags: Mapping[str, str], name: str, default: float) -> float:
    """Returns a tag's value, or the default if it is not from 0 to 100."""
    try:
        value = float(tags[name])
    except (KeyError, ValueError):
        return default
    return value if 0 <= value <= 100 else default


def namesake_stage(alias: str) -> str | None:
    """Returns the legacy stage named like an alias, which counts if the alias is not set."""
    stage = alias.capitalize()
    return stage if stage in STAGES else None


def in_stage(versions: Iterable[Version], stage: str) -> list[Version]:
    """Returns the versions in a legacy stage; its name is case-insensitive, as in MLflow."""
    return [version for version in versions if version.current_stage.lower() == stage.lower()]


def latest_moved(versions: Sequence[Version], stage: str) -> tuple[Version, str]:
    """Returns the most recently changed of the versions in one stage, and the reason as a phrase.

    `models:/name/Production` would return the highest number, even after an older version was moved back. The registry
    does not record the time of the transition, so a changed description counts, too.
    """
    chosen = max(versions, key=lambda version: (version.last_updated_timestamp or 0, int(version.version)))
    because = f"stage {stage!r}"
    if len(versions) > 1:
        others = ", ".join(sorted(str(v.version) for v in versions if v is not chosen))
        because += f", the last of several to be changed; also there: {others}"
    return chosen, because
