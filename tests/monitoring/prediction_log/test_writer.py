"""The writer and the converter: nothing is lost that reached the journal, whatever happens to folder, disk or clock."""

import contextlib
import datetime as dt
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from prometheus_client import REGISTRY

from serving.monitoring.prediction_log import writer as module
from serving.monitoring.prediction_log.converter import run
from serving.monitoring.prediction_log.files import find_files
from serving.monitoring.prediction_log.frames import Frame, pack, take_frames
from serving.monitoring.prediction_log.journal import Journal, find_journals
from serving.monitoring.prediction_log.reading import Period, read_log
from serving.monitoring.prediction_log.writer import Writer
from tests.monitoring.prediction_log.answered import finished, frame_of, numbers, options
from tests.support.disks import small_disk
from tests.support.environment import wait_until
from tests.support.manifests import some_manifest

LONG_AGO = dt.date(1970, 1, 1)


def frames(n_rows: int = 10, first: int = 0, **more: Any) -> list[Frame]:
    return take_frames(bytearray(frame_of(finished(numbers(n_rows, first), manifest=some_manifest(**more)))))


def written(folder: Path) -> list[float]:
    """The rows that a reader of Parquet finds."""
    return sorted(ds.dataset(folder, partitioning="hive").to_table()["input_a"].to_pylist())


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"model_prediction_log_{name}", labels) or 0.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "SYNC_SECONDS", 0.0)


def tick_until(writer: Writer, claim: Any, what: str) -> None:
    def is_so() -> bool:
        writer.tick()
        return bool(claim())

    wait_until(is_so, 30, what)


def test_files_are_by_model_version_and_day_and_names_may_be_odd(tmp_path: Path):
    name = "../Größe & co/=%\n" + "x" * 30
    writer = Writer(options(tmp_path))
    writer.add(frames(3, name=name, version="12") + frames(2, 3))
    writer.close(30)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    assert {(file.model, file.version, file.date) for file in find_files(tmp_path / "log")} == {
        (name, "12", today),
        ("churn", "3", today),
    }
    table = ds.dataset(tmp_path / "log", partitioning="hive").to_table()
    assert set(table["model"].to_pylist()) == {name, "churn"}
    assert read_log(tmp_path / "log", model=name)["input_a"].to_pylist() == [0, 1, 2]
    writer = Writer(options(tmp_path))
    writer.add(frames(1, name="ä" * 250))  # longer, in a path, than file systems allow
    writer.close(30)
    assert len(find_files(tmp_path / "log")) == 3


@pytest.mark.parametrize("limit", [{"file_bytes": 1}, {"file_seconds": 0}])
def test_a_file_is_complete_at_its_size_or_age_while_the_writer_runs(tmp_path: Path, limit):
    writer = Writer(options(tmp_path, **limit))
    writer.add(frames(5))
    tick_until(writer, lambda: find_files(tmp_path / "log"), "there is a file")
    writer.add(frames(5, 5))
    tick_until(writer, lambda: len(find_files(tmp_path / "log")) == 2, "there is another")
    assert written(tmp_path / "log") == list(range(10))
    writer.close(30)


def test_what_a_killed_writer_wrote_is_there_after_the_next_start(tmp_path: Path):
    (tmp_path / "log").mkdir()
    journal = Journal(tmp_path / "log")
    whole = frame_of(finished(numbers(4)))
    journal.append(whole + whole[: len(whole) // 2])  # killed in the middle of a write
    # A journal that another writer still holds.
    other = Journal(tmp_path / "log")
    other.append(frame_of(finished(numbers(2, 100))))
    os.close(journal._file)  # as the kernel does it
    writer = Writer(options(tmp_path))
    tick_until(writer, lambda: find_files(tmp_path / "log"), "it is converted")
    assert written(tmp_path / "log") == [0, 1, 2, 3]
    assert other.path.exists()
    other.close()
    writer.close(30)
    assert written(tmp_path / "log") == [0, 1, 2, 3, 100, 101]
    assert find_journals(tmp_path / "log") == []


def test_a_conversion_that_is_repeated_after_a_crash_makes_no_duplicates(tmp_path: Path):
    (tmp_path / "log").mkdir()
    journal = Journal(tmp_path / "log")
    journal.append(frame_of(finished(numbers(4))))
    journal.close()
    content = journal.path.read_bytes()
    for _ in range(2):
        journal.path.write_bytes(content)
        assert run(options(tmp_path), LONG_AGO).trouble == ""
    assert written(tmp_path / "log") == [0, 1, 2, 3]


def test_a_damaged_message_is_counted_and_the_others_are_there(tmp_path: Path):
    (tmp_path / "log").mkdir()
    journal = Journal(tmp_path / "log")
    journal.append(pack(b"no message of ours", 3) + frame_of(finished(numbers(2))))
    journal.close()
    assert run(options(tmp_path), LONG_AGO).n_damaged == 1
    assert written(tmp_path / "log") == [0, 1]


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    filler = folder.parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@contextlib.contextmanager
def deleted(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder)
    yield
    folder.mkdir()


@pytest.mark.parametrize(
    ("broken", "reason", "n_unnoticed"),
    # Until it is noticed, once a second, a deleted file takes rows.
    [(full, "No space left on device", 0), (deleted, "No such file or directory", 1_000)],
)
def test_without_its_folder_the_log_stops_says_so_once_and_goes_on(
    tmp_path: Path,
    broken: Any,
    reason: str,
    n_unnoticed: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(logging.getLogger("serving"), "propagate", True)
    caplog.set_level("INFO", "serving")
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 50_000)
    before = counted("dropped_rows_total", reason="disk")
    with small_disk(tmp_path / "disk", 2) as disk:
        writer = Writer(options(tmp_path, folder=str(disk / "log")))
        with broken(disk / "log"):
            for first in range(0, 20_000, 1_000):
                writer.add(frames(1_000, first))
                writer.tick()
                time.sleep(0.02)
            assert counted("failing") == 1
            n_dropped = counted("dropped_rows_total", reason="disk") - before
            assert 0 < n_dropped < 20_000
            said = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
            assert len(said) == 1
            assert reason in said[0]
        tick_until(writer, lambda: counted("failing") == 0, "it goes on")
        writer.add(frames(3, 50_000))
        writer.close(30)
        found = written(disk / "log")
        assert found[-3:] == [50_000, 50_001, 50_002]
        assert len(found) == len(set(found)) == 20_003 - n_dropped - n_unnoticed
        assert any("goes on" in one.getMessage() for one in caplog.records)


def test_a_folder_that_is_read_only_when_it_starts(tmp_path: Path):
    with small_disk(tmp_path / "disk", 2) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        writer = Writer(options(tmp_path, folder=str(disk / "log")))
        writer.add(frames(3))
        assert writer._trouble
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        (disk / "log").mkdir()
        tick_until(writer, lambda: not writer._trouble, "it goes on")
        writer.close(30)
        assert written(disk / "log") == [0, 1, 2]


def test_a_disk_too_full_for_parquet_keeps_the_journal(tmp_path: Path):
    with small_disk(tmp_path / "disk", 2) as disk:
        (disk / "log").mkdir()
        journal = Journal(disk / "log")
        journal.append(frame_of(finished(numbers(900))))
        journal.close()
        with full(disk / "log"):
            assert run(options(tmp_path, folder=str(disk / "log")), LONG_AGO).trouble
            assert journal.path.exists()
            assert [path for path in disk.rglob("*") if path.suffix in (".tmp", ".parquet")] == []
        assert run(options(tmp_path, folder=str(disk / "log")), LONG_AGO).trouble == ""
        assert written(disk / "log") == list(range(900))


def store(folder: Path, n_rows: int, day: dt.date) -> None:
    """Makes a file of a day."""
    journal = Journal(folder)
    journal.append(frame_of(finished(numbers(n_rows))))
    journal.close()
    run(options(folder.parent), LONG_AGO)
    new = max(find_files(folder), key=lambda file: file.path.stat().st_mtime_ns).path
    other = new.parent.with_name(f"date={day.isoformat()}") / new.name
    other.parent.mkdir(exist_ok=True)
    new.rename(other)


def test_old_files_are_deleted_by_age_and_by_size(tmp_path: Path):
    folder = tmp_path / "log"
    folder.mkdir()
    for day in range(1, 6):
        store(folder, 10, dt.date(2026, 1, day))
    n_bytes = find_files(folder)[0].path.stat().st_size
    run(options(tmp_path), dt.date(2026, 1, 3))
    assert [file.date for file in find_files(folder)] == ["2026-01-03", "2026-01-04", "2026-01-05"]
    outcome = run(options(tmp_path, keep_bytes=n_bytes * 1.5), LONG_AGO)
    assert [file.date for file in find_files(folder)] == ["2026-01-05"]
    assert outcome.n_bytes == n_bytes
    assert not (folder / "model=churn/version=3/date=2026-01-01").exists()


def test_a_clock_that_is_set_forward_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "log"
    folder.mkdir()
    store(folder, 10, dt.datetime.now(dt.UTC).date())
    writer = Writer(options(tmp_path))
    later = time.time() + 100 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    writer._convert()
    writer._collect(30)
    assert len(find_files(folder)) == 1
    writer.close(30)


def test_the_reader_finds_rows_in_files_and_journals_once(tmp_path: Path):
    folder = tmp_path / "log"
    folder.mkdir()
    first = Journal(folder)
    first.append(frame_of(finished(numbers(2))))
    content = first.path.read_bytes()
    first.close()
    run(options(tmp_path), LONG_AGO)
    second = Journal(folder)
    second.append(frame_of(finished(numbers(2, 2), manifest=some_manifest(version="4"))))
    assert read_log(folder)["input_a"].to_pylist() == [0, 1, 2, 3]
    first.path.write_bytes(content)  # a converter that has not deleted it yet
    assert read_log(folder)["input_a"].to_pylist() == [0, 1, 2, 3]
    assert read_log(folder, version="4", columns=["input_a", "nothing"]).to_pylist() == [
        {"model": "churn", "version": "4", "input_a": 2.0},
        {"model": "churn", "version": "4", "input_a": 3.0},
    ]
    now = dt.datetime.now(dt.UTC)
    assert read_log(folder, period=Period(since=now + dt.timedelta(minutes=1))).num_rows == 0
    assert read_log(folder, period=Period(until=now - dt.timedelta(days=2))).num_rows == 0
    assert read_log(folder, period=Period(since=now - dt.timedelta(minutes=1), until=now)).num_rows == 4
    second.close()
