"""What the writer and the converter get on their command line: they do without the settings, and their memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from serving.process.logs import Format

if TYPE_CHECKING:
    from serving.settings import Settings


def socket_path(run_directory: Path) -> Path:
    """Returns the socket through which workers reach the writer."""
    return run_directory / "predictions"


class Options(msgspec.Struct, frozen=True):
    """The log's folder and limits."""

    run_directory: str
    folder: str
    file_bytes: float
    file_seconds: float
    keep_bytes: float
    keep_seconds: float
    log_format: Format

    @classmethod
    def of(cls, run_directory: Path, folder: Path, settings: "Settings") -> Self:
        """Returns the options of a service."""
        return cls(
            str(run_directory),
            str(folder.absolute()),
            settings.log_file_mb * 1e6,
            settings.log_file_seconds,
            settings.log_keep_mb * 1e6,
            settings.log_keep_days * 86_400,
            settings.log_format,
        )


class Outcome(msgspec.Struct, frozen=True):
    """What the converter did, as JSON on its standard output."""

    n_bytes: int = 0
    """Size of the log."""
    trouble: str = ""
    """Why a journal was not converted, or a file not deleted; empty if all went well."""
    n_damaged: int = 0
    """Messages that could not be read."""
