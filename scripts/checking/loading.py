"""Loads a prepared model as a worker does; prints what that takes, as JSON.

python -m scripts.checking.loading FOLDER RUN_DIRECTORY
"""

import contextlib
import logging
import resource
import sys
from pathlib import Path

import msgspec


class Loaded(msgspec.Struct, frozen=True):
    """What a model takes in a worker."""

    memory_mb: float
    """Of 10^6 bytes, with the libraries that it needs."""
    one_row_ms: float
    thousand_rows_ms: float
    error: str = ""
    """Why it cannot be loaded."""


def main(folder: Path, run_directory: Path) -> Loaded:
    """Loads and measures it; confined as workers are (`service.py`)."""
    from serving.model.prepared import Manifest, Prepared
    from serving.process.logs import configure_logging
    from serving.process.sandbox import confine
    from serving.settings import load_settings
    from serving.traffic.loaded import LoadedModel
    from serving.traffic.router import why_not_loaded

    settings = load_settings()
    configure_logging()
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    if sys.platform == "linux" and not settings.allow_pickle:
        with contextlib.suppress(OSError):  # a service without Landlock goes on, too
            confine([folder, *settings.readable_files], run_directory)
    before = _resident_mb()
    try:
        costs = LoadedModel(Prepared(folder, manifest), settings).costs
    except Exception as error:
        logging.getLogger("serving.check").exception("the model cannot be loaded")
        return Loaded(0, 0, 0, f"it {why_not_loaded(error)}")
    return Loaded(_resident_mb() - before, costs.estimate(1) * 1e3, costs.estimate(1000) * 1e3)


def _resident_mb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 / 1e6


if __name__ == "__main__":
    print(msgspec.json.encode(main(*map(Path, sys.argv[1:]))).decode())
