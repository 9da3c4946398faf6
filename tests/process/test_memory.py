"""`serving.process.memory`: how much is left, and a process that asks for more."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving.process.memory import REQUESTS_BYTES, available_bytes, requests_bytes, total_bytes
from tests.support.environment import ROOT

MEMINFO = "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:     600 kB\n"


def group_v1(folder: Path, limit: str, current: int, inactive: int = 0) -> Path:
    (folder / "memory").mkdir()
    (folder / "memory/memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory/memory.usage_in_bytes").write_text(f"{current}\n")
    (folder / "memory/memory.stat").write_text(f"inactive_file 0\ntotal_inactive_file {inactive}\n")
    return folder


def group(folder: Path, limit: str, current: int, inactive: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 600 * 1024), ("500000", 300_000 + 7), ("999999999", 600 * 1024)]
)
def test_the_smaller_of_container_and_machine_counts(tmp_path: Path, limit: str, expected: int):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(MEMINFO)
    assert available_bytes(group(tmp_path, limit, 200_000, 7), meminfo) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [("9223372036854771712", 600 * 1024), ("500000", 300_000 + 7)]
)
def test_control_groups_of_version_1_count_too(tmp_path: Path, limit: str, expected: int):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(MEMINFO)
    assert available_bytes(group_v1(tmp_path, limit, 200_000, 7), meminfo) == expected


@pytest.mark.parametrize(("limit", "expected"), [("max", 1_024_000), ("500000", 500_000), ("", 1_024_000)])
@pytest.mark.parametrize("make", [group, group_v1])
def test_there_is_what_container_and_machine_have(tmp_path: Path, make, limit: str, expected: int):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(MEMINFO)
    assert total_bytes(make(tmp_path, limit, 200_000), meminfo) == expected


def test_where_nothing_is_said_nothing_is_known(tmp_path: Path):
    assert available_bytes(tmp_path, tmp_path / "missing") is None
    assert total_bytes(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("total", "n_workers", "expected"),
    [(2**30, 1, 2**30 // 5), (2**30, 2, 2**30 // 10), (2**36, 1, REQUESTS_BYTES), (None, 4, REQUESTS_BYTES)],
)
def test_requests_may_take_a_part_of_it(monkeypatch, total: int | None, n_workers: int, expected: int):
    monkeypatch.setattr("serving.process.memory.total_bytes", lambda: total)
    assert requests_bytes(n_workers) == expected


def test_a_limited_process_runs_out_before_the_machine_does():
    code = (
        "from serving.process.memory import limit_memory\n"
        "limit_memory(200)\n"
        "kept = bytearray(50_000_000)\n"
        "try:\n"
        "    bytearray(300_000_000)\n"
        "except MemoryError:\n"
        "    print('as it should be')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "as it should be"
