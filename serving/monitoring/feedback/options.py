"""What the keeper and its helpers get on their command line."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from serving.process.logs import Format
from serving.process.sandbox import FEEDBACK_STORE

if TYPE_CHECKING:
    from serving.settings import Settings

STORE_VARIABLE = FEEDBACK_STORE
"""The store is not on the command line, which every user of the machine can read: its URL may have a password."""


HEADER = struct.Struct("<Q")
"""Before a body on the keeper's socket: its length."""


def socket_path(run_directory: Path) -> Path:
    """Returns the socket through which workers pass on feedback."""
    return run_directory / "feedback"


def quality_path(run_directory: Path) -> Path:
    """Returns the file with the answer of `/v1/quality`."""
    return run_directory / "quality.json"


class Options(msgspec.Struct, frozen=True):
    """The model, and where its answers are."""

    run_directory: str
    folder: str
    """Of the prediction log."""
    model: str
    slices: tuple[str, ...]
    """Inputs by whose values quality is told apart."""
    keep_seconds: float
    quality_seconds: float
    log_format: Format

    @classmethod
    def of(cls, run_directory: Path, folder: Path, model: str, settings: "Settings") -> Self:
        """Returns the options of a service."""
        return cls(
            str(run_directory),
            str(folder.absolute()),
            model,
            tuple(settings.quality_slice_names),
            settings.log_keep_days * 86_400,
            settings.quality_seconds,
            settings.log_format,
        )
