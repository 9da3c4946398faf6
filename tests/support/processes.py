"""What the tests know of a running service by its processes."""

import json
from pathlib import Path
from typing import Any

from serving.settings import RUN_DIRECTORY_VARIABLE

WORKER = "_bentoml_impl.worker.service"
SYNC = "serving.prepare.sync"
ATTEMPT = "serving.prepare"


def child_processes(parent: int, module: str) -> list[int]:
    """The processes below `parent` that run the module."""
    found = []
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
    queue = [parent]
    while queue:
        for pid in children.get(queue.pop(), []):
            queue.append(pid)
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if module.encode() in arguments:
                found.append(pid)
    return found


def run_directory(parent: int) -> Path | None:
    """Where the processes of a service tell each other what they do; None where no worker runs yet."""
    for pid in child_processes(parent, WORKER):
        try:
            variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        except OSError:
            continue
        for variable in variables:
            name, _, value = variable.partition("=")
            if name == RUN_DIRECTORY_VARIABLE:
                return Path(value)
    return None


def worker_reports(directory: Path) -> list[dict[str, Any]]:
    """What each worker that lives has said of itself."""
    reports = []
    for file in (directory / "workers").glob("[0-9]*.json"):
        try:
            report = json.loads(file.read_bytes())
            command = Path(f"/proc/{report['pid']}/cmdline").read_bytes()
        except OSError:
            continue
        if WORKER.encode() in command:  # one that has ended and is not reaped has none
            reports.append(report)
    return reports


def resident_mb(pid: int) -> float:
    """The memory of a process, in 10^6 bytes."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) * 1024 / 1e6
