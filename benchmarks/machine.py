"""The machine of the measurements."""

import os
import platform
import subprocess
from pathlib import Path

from benchmarks.load import find_wrk
from benchmarks.places import ROOT


def describe_machine() -> dict[str, str]:
    """Returns processor, cores, memory, system, and the versions shared by all measurements."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "system": _field(Path("/etc/os-release"), "PRETTY_NAME", "=").strip('"'),
        "python": platform.python_version(),
        "wrk": _first_line([find_wrk(), "-v"]).partition(" [")[0],
        "commit": _first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
    }


def _field(file: Path, name: str, separator: str = ":") -> str:
    """Returns the value of the first line `name: value` of a file, or an empty string."""
    if not file.is_file():
        return ""
    for line in file.read_text().splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return ""


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    return (done.stdout.strip().splitlines() or [""])[0].strip()
