"""Fetches a version's files from the artifact store that the registry names.

Files are fetched individually into a folder that outlives the attempt. After an interruption, by a slow line or the
time limit, the next attempt reuses complete files.
"""

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from serving.errors import ModelRefused, PrepareError
from serving.prepare.registry.resolution import Resolved
from serving.prepare.registry.stores import explain, locate
from serving.settings import Settings

log = logging.getLogger("serving.prepare")

PROGRESS_SECONDS = 10
"""Interval between log lines about a download."""

N_AT_ONCE = 4
"""Concurrent downloads; MLflow's clients split large files themselves."""


def fetch(resolved: Resolved, folder: Path, settings: Settings) -> Path:
    """Fetches a version's files, except those from an earlier attempt; returns their folder.

    Args:
        resolved: the version.
        folder: for these files only; created if missing.
        settings: of the service.

    Raises:
        ModelNotFound: they cannot be fetched, perhaps temporarily.
        ModelRefused: they are too large, or the store's client is not installed.
        OSError: they cannot be written.
    """
    complete, partial = folder / "complete", folder / "partial"
    for path in (complete, partial):
        path.mkdir(parents=True, exist_ok=True)
    try:
        _fetch(resolved, complete, partial, settings)
    except PrepareError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        # MLflow wraps its stores' exceptions; only the disk itself shows that it is full.
        if shutil.disk_usage(folder).free < 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise explain(error, resolved, settings) from error
    return complete


def _fetch(resolved: Resolved, complete: Path, partial: Path, settings: Settings) -> None:
    repository = open_repository(resolved, settings)
    sizes = dict(list_files(repository))
    total = sum(sizes.values())
    if total > settings.max_model_mb * 1e6:
        raise ModelRefused(
            f"its files take {total / 1e6:.0f} MB, more than the limit of {settings.max_model_mb:g}; log a "
            "smaller model, or raise SERVING_MAX_MODEL_MB"
        )
    missing = [path for path in sizes if not (complete / path).is_file()]
    if len(missing) < len(sizes):
        log.info("%d of %d files were fetched by an earlier attempt", len(sizes) - len(missing), len(sizes))

    def fetch_one(path: str) -> None:
        fetched = Path(repository.download_artifacts(path, str(partial)))
        target = complete / fetched.relative_to(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(target)

    with _progress(resolved.title, complete.parent, total):
        pool = ThreadPoolExecutor(N_AT_ONCE, thread_name_prefix="fetch")
        try:
            list(pool.map(fetch_one, missing))
        finally:
            pool.shutdown(cancel_futures=True)


def open_repository(resolved: Resolved, settings: Settings) -> Any:
    """Returns MLflow's client of the store with a version's files.

    Raises: whatever the registry's client does.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    if settings.registry.startswith("databricks") and resolved.unregistered_uri is None:
        # Unity Catalog issues a login or a signed URL per version.
        return ModelsArtifactRepository(resolved.uri, settings.tracking_uri, settings.registry)
    # Not by `models:/`: for it, MLflow always uses the registry in its own variables.
    return get_artifact_repository(locate(resolved, settings), settings.tracking_uri, settings.registry)


def list_files(repository: Any, folder: str | None = None) -> Iterator[tuple[str, int]]:
    """Yields each file in an MLflow artifact repository and its size in bytes; 0 if unknown."""
    for entry in repository.list_artifacts(folder):
        if entry.is_dir:
            yield from list_files(repository, entry.path)
        else:
            yield entry.path, int(entry.file_size or 0)


@contextlib.contextmanager
def _progress(what: str, folder: Path, total_bytes: int) -> Iterator[None]:
    """Logs the progress of a download."""
    is_over = threading.Event()

    def tell() -> None:
        while not is_over.wait(PROGRESS_SECONDS):
            here = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            log.info("fetching %s: %.0f of %.0f MB", what, here / 1e6, total_bytes / 1e6)

    began = time.monotonic()
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        is_over.set()
        teller.join()
    log.info("fetched %s: %.1f MB in %.1f s", what, total_bytes / 1e6, time.monotonic() - began)
