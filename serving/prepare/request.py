"""What a preparing process is asked for, and what comes of it: one JSON document each way."""

from pathlib import Path

import msgspec

from serving.model.state import write_aside
from serving.prepare.registry.resolution import Resolved, Wanted


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an attempt: a tag in the model store, versions in the registry, or why there is none."""

    tag: str | None = None
    wanted: Wanted | None = None
    code: str = ""
    message: str = ""


class PrepareRequest(msgspec.Struct, frozen=True):
    """What an attempt is to get ready."""

    resolved: Resolved
    champion: str | None
    """The tag of the model that answers now, with which it is compared."""


def write_outcome(file: Path, outcome: Outcome) -> None:
    """Tells the process that started the attempt."""
    write_aside(file, outcome)


def read_outcome(file: Path) -> Outcome | None:
    """Returns what came of the attempt; None where it did not get so far."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None
