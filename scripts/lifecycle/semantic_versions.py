"""Semantic versions such as 2.1.0, derived from what a version changes for callers.

major: it rejects requests that the version before accepts, or answers with another type.
minor: it was trained on other data, or by other code; or that is unknown.
patch: neither; other parameters, for example.

MLflow's aliases cannot contain dots, and `v2` is reserved, so 2.1.0 is the tag `serving.semantic_version` and the alias
`v2-1-0`.
"""

import argparse
import json
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.compatibility import schema_of, why_refused
from serving.prepare.registry.resolution import SEMANTIC_VERSION_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from serving.model.schema import Schema
    from serving.prepare.registry.resolution import Version

Level = Literal["major", "minor", "patch"]
LEVELS: tuple[Level, ...] = ("major", "minor", "patch")

DATA_TAG = "data_sha256"
CODE_TAG = "code_sha256"
"""Tags of a run by `train.py`: digests of its training data and code."""

COMMIT_TAG = "mlflow.source.git.commit"
"""Tag of a run by MLflow."""


class SemanticVersion(NamedTuple):
    """Major, minor and patch."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def alias(self) -> str:
        """Its alias in the registry."""
        return f"v{self.major}-{self.minor}-{self.patch}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Returns the version; None if the text is not one."""
        found = re.fullmatch(r"v?(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", text)
        return cls(*map(int, found.groups())) if found else None


class Lineage(NamedTuple):
    """What is known of a version's origin."""

    schema: "Schema | None"
    outputs: tuple[str, ...]
    """The types of its answers."""
    data: str | None
    """A digest of its training data."""
    code: str | None
    """A digest, or a commit, of its training code."""


def find_level(old: Lineage, new: Lineage) -> tuple[Level, str]:
    """Returns which part of the version increases, and why."""
    refused = why_refused(old.schema, new.schema) if old.schema and new.schema else ""
    if refused:
        return "major", refused
    if old.outputs and new.outputs and old.outputs != new.outputs:
        return "major", f"its answers were {', '.join(old.outputs)} and are {', '.join(new.outputs)}"
    if old.data is None or new.data is None or old.data != new.data:
        return (
            "minor",
            "trained on other data" if old.data and new.data else "its training data is unknown",
        )
    if old.code is None or new.code is None or old.code != new.code:
        return "minor", "trained by other code" if old.code and new.code else "its training code is unknown"
    return "patch", "the same data and code"


def next_version(
    before: SemanticVersion | None, taken: Collection[SemanticVersion], level: Level
) -> SemanticVersion:
    """Returns the next version that no other has taken.

    Args:
        before: the one that it is compared with; None for the first.
        taken: those of all versions of the model.
        level: the part that increases.
    """
    if before is None:
        return SemanticVersion(1 + max((one.major for one in taken), default=0), 0, 0)
    if level == "major":
        return SemanticVersion(1 + max(one.major for one in {before, *taken}), 0, 0)
    same = [one for one in {before, *taken} if one.major == before.major]
    if level == "minor":
        return SemanticVersion(before.major, 1 + max(one.minor for one in same), 0)
    patches = [one.patch for one in same if one.minor == before.minor]
    return SemanticVersion(before.major, before.minor, 1 + max(patches))


def add_semantic_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that overrides the derived version."""
    parser.add_argument(
        "--semantic-version",
        type=parse_wish,
        metavar="2.1.0|major|minor|patch",
        help="semantic version, or the part to increase (default: by signature, data and code)",
    )


def parse_wish(text: str) -> SemanticVersion | Level:
    """Returns the value of the option.

    Raises:
        argparse.ArgumentTypeError: it is neither a version nor a part of one.
    """
    found = next((level for level in LEVELS if level == text), None) or SemanticVersion.parse(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a version such as 2.1.0, nor major, minor or patch"
        )
    return found


def read_versions(versions: "Collection[Version]") -> dict[str, SemanticVersion]:
    """Returns the semantic version of each of a model's versions that has one, by number."""
    found = {
        str(version.version): SemanticVersion.parse(version.tags.get(SEMANTIC_VERSION_TAG, ""))
        for version in versions
    }
    return {number: one for number, one in found.items() if one is not None}


def ask_versions(client: "MlflowClient", name: str) -> dict[str, SemanticVersion]:
    """The same, read from the registry.

    Raises:
        MlflowException: it does not answer.
    """
    from serving.prepare.registry.client import all_versions

    return read_versions(all_versions(client, name))


def base_of(version: str, production: str | None, known: Mapping[str, SemanticVersion]) -> str | None:
    """Returns the version to compare another one with: production, else the newest before it."""
    if production in known and production != version:
        return production
    older = [number for number in known if int(number) < int(version)]
    return max(older, key=int, default=None)


def assign(
    client: "MlflowClient",
    name: str,
    version: str,
    production: str | None,
    wish: SemanticVersion | Level | None = None,
) -> str:
    """Gives a version its semantic version, as tag and alias, unless it has one and no other is wished for.

    Args:
        client: of the registry.
        name: of the registered model.
        version: its number.
        production: the number of the version in production; None if there is none.
        wish: overrides the derived one.

    Returns:
        What was given and why, in words; empty if it has one already.

    Raises:
        LifecycleError: another version has the one wished for.
        MlflowException: the registry rejects it.
    """
    from mlflow.exceptions import MlflowException

    known = ask_versions(client, name)
    if wish is None and version in known:
        return ""
    first = ""
    if not known and production is not None and production != version:
        first = f"{assign(client, name, production, None)}; "
        known = ask_versions(client, name)
    others = {number: one for number, one in known.items() if number != version}
    if isinstance(wish, SemanticVersion):
        check_wish(name, wish, others)
        given, why = wish, "as asked"
    else:
        base = base_of(version, production, others)
        level: Level = "major"
        why = "the first"
        if base is not None:
            level, why = find_level(read_lineage(client, name, base), read_lineage(client, name, version))
            if wish is not None:
                level, why = wish, "as asked"
            why = f"{level} after {others[base]}: {why}"
        given = next_version(others[base] if base else None, others.values(), level)
    client.set_model_version_tag(name, version, SEMANTIC_VERSION_TAG, str(given))
    if version in known:
        client.delete_registered_model_alias(name, known[version].alias)
    try:
        client.set_registered_model_alias(name, given.alias, version)
    except MlflowException:  # servers before 2.3 have none; services read the tag
        why += f"; the registry rejects the alias {given.alias}"
    return f"{first}{name} version {version} is {given} ({why})"


def check_wish(
    name: str,
    wish: SemanticVersion | Level | None,
    known: Mapping[str, SemanticVersion],
    version: str | None = None,
) -> None:
    """Checks, before anything is done, that no other version has the semantic version wished for.

    Args:
        name: of the registered model.
        wish: for the version.
        known: those of the model's versions, by number.
        version: its number; None if it is not registered yet.

    Raises:
        LifecycleError: another version has it.
    """
    for number, one in known.items():
        if one == wish and number != version:
            raise LifecycleError(f"{wish} is version {number} of {name!r} already; choose another")


def read_lineage(client: "MlflowClient", name: str, version: str) -> Lineage:
    """Returns what the registry knows of a version's origin.

    Raises:
        MlflowException: the registry does not answer.
    """
    from mlflow.models import get_model_info

    signature = get_model_info(f"models:/{name}/{version}").signature
    found = client.get_model_version(name, version)
    run = client.get_run(found.run_id) if found.run_id else None
    tags = run.data.tags if run else {}
    digests = sorted(one.dataset.digest for one in run.inputs.dataset_inputs) if run and run.inputs else []
    written = signature.to_dict().get("outputs") if signature is not None else None
    outputs = tuple(_type_of(one) for one in json.loads(written)) if written else ()
    return Lineage(
        schema_of(signature),
        outputs,
        tags.get(DATA_TAG) or (",".join(digests) or None),
        tags.get(CODE_TAG) or tags.get(COMMIT_TAG),
    )


def _type_of(output: dict[str, object]) -> str:
    return json.dumps(output.get("tensor-spec") or output.get("type"))
