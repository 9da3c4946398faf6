"""Request to a preparing process and its outcome: one JSON document each way."""

from pathlib import Path

import msgspec

from serving.model.state import write_aside
from serving.prepare.registry.resolution import Resolved, Wanted


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of an attempt: a tag in the model store, versions in the registry, or an error."""

    tag: str | None = None
    wanted: Wanted | None = None
    code: str = ""
    message: str = ""


class PrepareRequest(msgspec.Struct, frozen=True):
    """The version that an attempt prepares."""

    resolved: Resolved
    champion: str | None
    """The tag of the current model, for comparison."""


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Writes the outcome for the process that started the attempt."""
    write_aside(file, outcome)


def read_outcome(file: Path) -> Outcome | None:
    """Returns the outcome of the attempt; None if it wrote none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None
