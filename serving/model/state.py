"""Communication of a service's sync process and workers, through files in the run directory.

    state.json           from the sync process: the prepared models to load, and their roles
    workers/PID.json     from each worker: the models it has loaded, failed to load, and serves
    asked                empty, touched by the sync process after each answer of the registry
    wake                 a named pipe: a byte in it makes the sync process poll the registry at once

Files are renamed into place, so that nobody reads half of one.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec


class Refused(msgspec.Struct, frozen=True):
    """A refused version, and why."""

    version: str
    code: str
    reason: str
    at: str
    """When it was refused, ISO 8601."""


class AutopilotStatus(msgspec.Struct, frozen=True):
    """The autopilot, which promotes or removes versions by their quality."""

    tag: str
    """Value of the registered model's tag."""
    trouble: str = ""
    """Why it cannot act; empty if it can."""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """The models that workers should load. Each is named by its tag in the model store."""

    champion: str | None = None
    """The model that answers."""
    staged: str | None = None
    """To be loaded beside it; it takes its role once every worker has loaded it."""
    challenger: str | None = None
    """The model that answers a share of the requests."""
    challenger_percent: float = 0
    shadow: str | None = None
    """The model that gets copies of requests after the answer is sent."""
    shadow_percent: float = 0
    previous: str | None = None
    """The champion before this one; it stays in the store."""
    reason: str = ""
    """Why there is no champion."""
    stale: str = ""
    """Why the registry's current state is unknown, or not followed; empty if it is."""
    held_back: dict[str, str] = {}
    """Why a model that the registry names as challenger or shadow is not loaded, by role."""
    refused: tuple[Refused, ...] = ()
    """The versions refused until they change."""
    autopilot: AutopilotStatus | None = None
    """None if it is off."""

    semantic_versions: dict[str, str] = {}
    """The models' semantic versions in the registry, such as `2.1.0`, by tag in the model store."""

    @property
    def tags(self) -> list[str]:
        """The models to load, the champion first."""
        tags = (self.champion, self.challenger, self.shadow, self.staged)
        return list(dict.fromkeys(tag for tag in tags if tag is not None))


class Report(msgspec.Struct, frozen=True):
    """One worker's report on the state."""

    pid: int
    serving: str | None
    loaded: tuple[str, ...]
    broken: dict[str, str]
    """Why a model could not be loaded, by tag."""


def state_path(run_directory: Path) -> Path:
    """Returns the file that the workers watch."""
    return run_directory / "state.json"


def read_state(run_directory: Path) -> State | None:
    """Returns the state; None if it is missing or unreadable."""
    try:
        return msgspec.json.decode(state_path(run_directory).read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError):
        return None


def write_state(run_directory: Path, state: State) -> None:
    """Writes the state for the workers."""
    write_aside(state_path(run_directory), state)


def note_asked(run_directory: Path) -> None:
    """Records that the registry has just answered."""
    with contextlib.suppress(OSError):  # a full disk, for example; the old time stays
        (run_directory / "asked").touch()


def read_asked(run_directory: Path) -> float | None:
    """Returns when the registry answered last, in seconds since 1970; None if it never did."""
    try:
        return (run_directory / "asked").stat().st_mtime
    except OSError:
        return None


def write_report(run_directory: Path, report: Report) -> None:
    """Writes a worker's report for the sync process."""
    folder = run_directory / "workers"
    folder.mkdir(exist_ok=True)
    write_aside(folder / f"{report.pid}.json", report)


def read_reports(run_directory: Path) -> dict[int, Report]:
    """Returns the reports of live workers by PID; removes those of dead ones."""
    reports: dict[int, Report] = {}
    for file in (run_directory / "workers").glob("[0-9]*.json"):
        try:
            report = msgspec.json.decode(file.read_bytes(), type=Report)
        except (OSError, msgspec.MsgspecError):
            continue
        if is_alive(report.pid):
            reports[report.pid] = report
        else:
            file.unlink(missing_ok=True)
    return reports


def is_alive(pid: int) -> bool:
    """Whether there is such a process, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_aside(file: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    aside = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        aside.write_bytes(msgspec.json.encode(content))
        aside.replace(file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def wake_path(run_directory: Path) -> Path:
    """Returns the pipe through which a worker wakes the sync process."""
    return run_directory / "wake"


def make_wake_pipe(run_directory: Path) -> Path:
    """Returns the pipe; creates it if it is missing."""
    pipe = wake_path(run_directory)
    if not pipe.exists():
        os.mkfifo(pipe, 0o600)
    return pipe


def wake(run_directory: Path) -> None:
    """Makes the sync process poll the registry at once, if it is running and not awake already."""
    with contextlib.suppress(OSError):
        pipe = os.open(wake_path(run_directory), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, b"!")
        finally:
            os.close(pipe)
