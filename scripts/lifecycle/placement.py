"""Which versions an alias or a legacy stage holds, and which of them is current."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scripts.lifecycle.moves import Selector
from serving.prepare.registry.resolution import Version, in_stage, latest_moved, namesake_stage


class Placement(NamedTuple):
    """What an alias or a stage holds at one moment."""

    versions: tuple[str, ...] = ()
    """At most one for an alias; for a stage, in the order of their last changes. The last one is current."""

    @property
    def current(self) -> str | None:
        """The current version; None if there is none."""
        return self.versions[-1] if self.versions else None

    def is_like(self, other: "Placement") -> bool:
        """True if both hold the same versions, and the same one is current."""
        return self.current == other.current and set(self.versions) == set(other.versions)


def place(selector: Selector, aliases: Mapping[str, str], versions: Sequence[Version]) -> Placement:
    """Returns what the alias or the stage holds.

    Args:
        selector: names it.
        aliases: of the registered model, with their versions.
        versions: all of the model; not needed for an alias.
    """
    if selector.kind == "alias":
        found = aliases.get(selector.name)
        return Placement((str(found),) if found is not None else ())
    left = in_stage(versions, selector.name)
    ordered: list[str] = []
    while left:
        last, _ = latest_moved(left, selector.name)
        left.remove(last)
        ordered.insert(0, str(last.version))
    return Placement(tuple(ordered))


def followed(selector: Selector, aliases: Mapping[str, str], versions: Sequence[Version]) -> str | None:
    """Returns the version that services take, or would; None if there is none.

    If an alias is not set, that is the one in the legacy stage of the same name.
    Source: `serving.prepare.registry.client`.
    """
    current = place(selector, aliases, versions).current
    stage = namesake_stage(selector.name)
    if current is None and selector.kind == "alias" and stage is not None:
        return place(Selector("stage", stage), aliases, versions).current
    return current


def name_of(version: str | None) -> str:
    """Returns the version in words."""
    return "no version" if version is None else f"version {version}"
