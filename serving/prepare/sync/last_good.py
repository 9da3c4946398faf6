"""Records the last served model, for a start without the registry.

One small file per selection (registry, model, and alias, stage or version) in the model store:

    $BENTOML_HOME/served/churn-0f1e2d3c4b5a.json
"""

import hashlib
from pathlib import Path

import msgspec

from serving.model.prepared import bentoml_home, store_name
from serving.model.state import write_aside
from serving.settings import Settings


class LastGood(msgspec.Struct, frozen=True):
    """Tags in the model store."""

    tag: str
    previous: str | None = None


def record_path(settings: Settings) -> Path:
    """Returns the record's file for the selection in the settings."""
    selection = (
        settings.registry,
        settings.model_name,
        settings.model_version,
        settings.model_stage,
        settings.model_alias,
    )
    key = hashlib.sha256(repr(selection).encode()).hexdigest()[:12]
    return bentoml_home() / "served" / f"{store_name(settings.model_name)}-{key}.json"


def read_last_good(settings: Settings) -> LastGood | None:
    """Returns the last served model; None if there is no readable record."""
    try:
        return msgspec.json.decode(record_path(settings).read_bytes(), type=LastGood)
    except (OSError, msgspec.MsgspecError):
        return None


def write_last_good(settings: Settings, last_good: LastGood) -> None:
    """Records the served model.

    Raises:
        OSError: the disk is full or not writable.
    """
    file = record_path(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_aside(file, last_good)
