"""Loads a prepared model as a worker does; prints its memory and latency as JSON.

python -m scripts.checking.loading FOLDER RUN_DIRECTORY
"""

import contextlib
import logging
import resource
import sys
from pathlib import Path

import msgspec


class Loaded(msgspec.Struct, frozen=True):
    """What a model costs in a worker."""

    memory_mb: float
    """In 10^6 bytes, including the libraries that it needs."""
    one_row_ms: float
    thousand_rows_ms: float
    refused_nulls: dict[str, str] = {}
    """The error that null causes, by column in which the signature allows null."""
    error: str = ""
    """Why it cannot be loaded; empty if it can."""


def main(folder: Path, run_directory: Path) -> Loaded:
    """Loads and measures the model, confined as workers are (`service.py`)."""
    from scripts.checking.nulls import find_refused_nulls
    from serving.model.prepared import Manifest, Prepared
    from serving.process.logs import configure_logging
    from serving.process.sandbox import confine
    from serving.runtime import load_runtime
    from serving.runtime.trusted import Trust
    from serving.settings import load_settings
    from serving.traffic.loaded import LoadedModel
    from serving.traffic.router import why_not_loaded

    settings = load_settings()
    configure_logging()
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    if sys.platform == "linux" and not settings.allow_pickle:
        with contextlib.suppress(OSError):  # a service without Landlock continues, too
            confine([folder, *settings.readable_files], run_directory)
    before = _resident_mb()
    try:
        model = LoadedModel(Prepared(folder, manifest), settings)
        costs, memory_mb = model.costs, _resident_mb() - before
        native = load_runtime(
            "native", folder, model.schema, Trust.of(manifest), n_threads=1, is_per_row=manifest.is_per_row
        )
        refused = find_refused_nulls(native, model.schema, model.examples)
    except Exception as error:
        logging.getLogger("serving.check").exception("the model cannot be loaded")
        return Loaded(0, 0, 0, error=f"it {why_not_loaded(error)}")
    return Loaded(memory_mb, costs.estimate(1) * 1e3, costs.estimate(1000) * 1e3, refused)


def _resident_mb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 / 1e6


if __name__ == "__main__":
    print(msgspec.json.encode(main(*map(Path, sys.argv[1:]))).decode())
