"""Decides which prepared models stay on disk."""

import fcntl
import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from serving.model.prepared import bentoml_home, store_name
from serving.settings import Settings

log = logging.getLogger("serving.sync")


class Retention:
    """Locks the prepared models that a service uses, so that no other service with the same store removes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: dict[str, int] = {}

    def keep(self, tags: list[str]) -> None:
        """Locks only these models; removes others above the limits.

        Args:
            tags: of the current and the previous models.
        """
        if self._held.keys() == set(tags):
            return
        for tag in self._held.keys() - set(tags):
            os.close(self._held.pop(tag))
        for tag in tags:
            if tag not in self._held:
                self._hold(tag)
        try:
            self._remove(tags)
        except OSError as error:
            log.warning("old prepared models cannot be removed: %s", error)

    def _hold(self, tag: str) -> None:
        folder = bentoml_home() / "models" / Path(*tag.split(":"))
        try:
            held = os.open(folder / "manifest.json", os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_SH)
            os.utime(held)  # marks it as used last
        except OSError:
            return  # deleted; the next round prepares it again
        self._held[tag] = held

    def _remove(self, tags: list[str]) -> None:
        """Removes the least recently used models, until the rest is within the limits."""
        kept = sorted(_stored(self._settings.model_name), key=lambda one: one.used, reverse=True)
        n_bytes, n_kept = sum(one.n_bytes for one in kept), len(kept)
        for one in reversed(kept):
            is_too_much = n_kept > self._settings.keep_versions or n_bytes > self._settings.keep_mb * 1e6
            if is_too_much and one.tag not in tags and _remove_unused(one.folder):
                log.info("removed the prepared model %s", one.tag)
                n_bytes, n_kept = n_bytes - one.n_bytes, n_kept - 1


class _Stored(NamedTuple):
    folder: Path
    used: float
    n_bytes: int

    @property
    def tag(self) -> str:
        return f"{self.folder.parent.name}:{self.folder.name}"


def _stored(model_name: str) -> list[_Stored]:
    found = []
    for file in (bentoml_home() / "models" / store_name(model_name)).glob("*/manifest.json"):
        try:
            sizes = [path.lstat().st_size for path in file.parent.rglob("*")]
            found.append(_Stored(file.parent, file.stat().st_mtime, sum(sizes)))
        except OSError:
            continue  # another service is removing it
    return found


def _remove_unused(folder: Path) -> bool:
    """Removes a prepared model unless a service holds it; returns whether it was removed."""
    try:
        held = os.open(folder / "manifest.json", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = bentoml_home() / "preparing" / f"{folder.parent.name}@{folder.name}.removed.tmp"
        aside.parent.mkdir(exist_ok=True)
        # Atomic, as when it was published: nobody sees half of it.
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True
