"""Metrics files that survive a full disk.

prometheus_client maps sparse files into memory: if a write finds no disk space, the kernel kills the process with SIGBUS,
and its replacement at startup. Here the space is reserved first. Without space, a worker counts in private memory, which
`/metrics` does not show, until there is some.
"""

import errno
import mmap
import os
import threading
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

_INITIAL_BYTES = 1 << 16
"""Initial size of prometheus_client's files. Source: `_INITIAL_MMAP_SIZE` in prometheus_client/mmap_dict.py."""

MAX_ENTRY_BYTES = 4096
"""Maximum size of a new time series: our names and labels are shorter."""

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of file systems that cannot reserve space."""

_homeless: "set[ReservedDict]" = set()
"""Those kept in memory."""


class ReservedDict(MmapedDict):
    """Values of one type of metric by time series, in a file whose space is reserved."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:  # prometheus_client's signature
        self._own_lock = threading.RLock()
        self._path = filename
        self.trouble: OSError | None = None
        try:
            reserve(filename, _INITIAL_BYTES)
        except OSError as error:
            Path(filename).unlink(missing_ok=True)
            self._lose(error)
            memory = os.memfd_create("metrics")
            super().__init__(f"/proc/self/fd/{memory}", read_mode)  # type: ignore[no-untyped-call]
            os.close(memory)
        else:
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _lose(self, error: OSError) -> None:
        self.trouble = error
        _homeless.add(self)

    def read_value(self, key: str) -> tuple[float, float]:
        """Returns a value and its time; 0 for a new one."""
        with self._own_lock:
            self._make_room(key)
            value, timestamp = super().read_value(key)  # type: ignore[no-untyped-call]
            return value, timestamp

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Sets a value and its time."""
        with self._own_lock:
            self._make_room(key)
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def _make_room(self, key: str) -> None:
        """Reserves space for the file's growth if it has no room for another entry."""
        if key in self._positions or self._used + MAX_ENTRY_BYTES <= self._capacity:
            return
        if self.trouble is None:
            try:
                reserve(self._path, 2 * self._capacity)
            except OSError as error:
                self._lose(error)
                self._move(os.memfd_create("metrics"), self._capacity)
        self._move(os.dup(self._f.fileno()), 2 * self._capacity)

    def _move(self, descriptor: int, capacity: int) -> None:
        """Continues in another file, or in a larger part of the same one."""
        content = self._m[: self._used]
        file = os.fdopen(descriptor, "r+b")
        file.truncate(capacity)
        mapped = mmap.mmap(descriptor, capacity)
        mapped[: len(content)] = content
        self._f.close()
        self._f, self._m, self._capacity = file, mapped, capacity

    def come_home(self) -> bool:
        """Moves from memory into the file; returns whether there was space for it."""
        aside = f"{self._path}.tmp"
        with self._own_lock:
            try:
                reserve(aside, self._capacity)
                self._move(os.open(aside, os.O_RDWR), self._capacity)
                Path(aside).replace(self._path)
            except OSError as error:
                Path(aside).unlink(missing_ok=True)
                self.trouble = error
                return False
            self.trouble = None
            return True


def reserve(filename: str, n_bytes: int) -> None:
    """Creates or grows a file with reserved disk space.

    Raises:
        OSError: there is no space.
    """
    descriptor = os.open(filename, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def use_reserved_files() -> None:
    """Makes metrics that this process creates from now on reserve their space."""
    if hasattr(os, "memfd_create"):  # Linux
        values.MmapedDict = ReservedDict  # type: ignore[attr-defined]  # it has no argument for this


def find_space() -> str | None:
    """Retries moving metrics from memory to files; returns why that fails, or None if none are left in memory."""
    for one in list(_homeless):
        if one.come_home():
            _homeless.discard(one)
    return next((str(one.trouble.strerror) for one in _homeless if one.trouble), None)
