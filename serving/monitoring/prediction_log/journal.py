"""The rows that are not in a Parquet file yet, in a file that survives a crash."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

FOLDER = ".journal"
"""In the log's folder. Readers of Parquet data sets ignore names that begin with a dot."""

SUFFIX = ".journal"


class Journal:
    """A file that its writer holds locked; an unlocked one is complete, or its writer has crashed."""

    def __init__(self, folder: Path) -> None:
        """Creates the file.

        Args:
            folder: of the log; it must exist.

        Raises:
            OSError: it cannot be created.
        """
        (folder / FOLDER).mkdir(exist_ok=True)
        self.path = (
            folder / FOLDER / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid4().hex[:8]}{SUFFIX}"
        )
        self._file = os.open(
            self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o640
        )
        with contextlib.suppress(
            OSError
        ):  # a file system without locks: nothing of others is converted there
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.n_bytes = 0
        self._n_synced = 0
        self.since = 0.0
        """Time of the first addition."""

    def append(self, data: bytes) -> None:
        """Adds data, all or nothing.

        Raises:
            OSError: it cannot be written.
        """
        view = memoryview(data)
        if not self.n_bytes:
            self.since = time.monotonic()
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.n_bytes)
            raise
        self.n_bytes += len(data)

    def sync(self) -> None:
        """Makes what was added survive a crash of the machine.

        Raises:
            OSError: the disk fails, or the file was deleted.
        """
        if self.n_bytes > self._n_synced:
            os.fdatasync(self._file)
            self._n_synced = self.n_bytes
        if self.path.stat().st_ino != os.fstat(self._file).st_ino:
            raise FileNotFoundError(2, os.strerror(2))

    def close(self) -> None:
        """Releases the file, for the converter; deletes it if it is empty."""
        if not self.n_bytes:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._file)


@contextlib.contextmanager
def taking(path: Path) -> Iterator[bool]:
    """Locks a journal; yields whether it is free, for one process at a time."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = os.fstat(file).st_nlink > 0
        except OSError:
            is_free = False
        yield is_free
    finally:
        os.close(file)


def find_journals(folder: Path) -> list[Path]:
    """Returns the journals in a log's folder, the oldest first."""
    return sorted((folder / FOLDER).glob(f"*{SUFFIX}"))
