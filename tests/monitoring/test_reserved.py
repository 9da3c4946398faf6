"""`serving.monitoring.reserved`: what is counted while the disk is full is shown once it is not."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from serving.monitoring import reserved
from serving.monitoring.reserved import ReservedDict, find_space


class Disk:
    """A disk that is full when a test says so."""

    def __init__(self) -> None:
        self.is_full = False

    def reserve(self, filename: str, n_bytes: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _RESERVE(filename, n_bytes)


_RESERVE = reserved.reserve


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(reserved, "reserve", made.reserve)
    monkeypatch.setattr(reserved, "_homeless", set())
    return made


Opened = Callable[[], ReservedDict]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "counter_1.db"


@pytest.fixture
def opened(file: Path) -> Iterator[Opened]:
    """Opens the file, once a test has the disk as it wants it."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(ReservedDict(str(file))))


def shown(file: Path) -> dict[str, float]:
    """What the file says to those who read it, as `/metrics` of every worker does."""
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(file))}


def count(counts: ReservedDict, n: int) -> dict[str, float]:
    """Counts so many time series."""
    expected = {f"series-{i}-{'x' * 200}": float(i) for i in range(n)}
    for key, value in expected.items():
        counts.read_value(key)
        counts.write_value(key, value, 0)
    return expected


def test_its_space_is_taken_before_it_is_written_to(disk: Disk, file: Path, opened: Opened):
    opened()
    status = file.stat()
    assert status.st_blocks * 512 >= status.st_size == 1 << 16


def test_a_file_grows_and_takes_its_space_first(disk: Disk, file: Path, opened: Opened):
    counts = opened()
    expected = count(counts, 1000)
    assert shown(file) == expected
    status = file.stat()
    assert status.st_blocks * 512 >= status.st_size > 1 << 17
    assert find_space() is None


@pytest.mark.parametrize("n_before", [0, 100])
def test_what_is_counted_while_the_disk_is_full_is_not_lost(
    disk: Disk, file: Path, opened: Opened, n_before: int
):
    disk.is_full = n_before == 0
    counts = opened()
    before = count(counts, n_before)
    disk.is_full = True
    expected = count(counts, 1000)
    assert find_space() == os.strerror(errno.ENOSPC)
    assert file.exists() == bool(n_before)
    assert {key: counts.read_value(key)[0] for key in expected} == expected
    disk.is_full = False
    assert find_space() is None
    assert shown(file) == expected | before
    assert shown(file) == count(counts, 1000)
    assert list(file.parent.iterdir()) == [file]


def test_a_file_system_that_reserves_nothing_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, file: Path, opened: Opened
):
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    counts = opened()
    assert shown(file) == count(counts, 0)
    expected = count(counts, 1000)
    assert shown(file) == expected
