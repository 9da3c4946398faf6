"""`serving.process.memory`: how much is left, and a process that asks for more."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving.process.memory import available_bytes
from tests.support.environment import ROOT

MEMINFO = "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:     600 kB\n"


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


def test_where_nothing_is_said_nothing_is_known(tmp_path: Path):
    assert available_bytes(tmp_path, tmp_path / "missing") is None


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
