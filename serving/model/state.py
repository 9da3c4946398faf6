"""What the sync process and the workers of one service tell each other, as files in the run directory.

    state.json           from the sync process: which prepared models to load, and which of them answer
    workers/PID.json     from each worker: what it has loaded, what it could not, what it serves
    asked                empty, touched by the sync process each time that the registry has answered
    wake                 a named pipe: a byte in it makes the sync process ask the registry at once

Every file appears by a rename, so that nobody reads half of one.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec


class Refused(msgspec.Struct, frozen=True):
    """A version that stays out, and why."""

    version: str
    code: str
    reason: str
    at: str
    """When it was refused, ISO 8601."""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the sync process wants of the workers. A model is named by its tag in the model store."""

    champion: str | None = None
    """The model that answers."""
    staged: str | None = None
    """To be loaded beside it: once every worker has, it becomes the champion everywhere."""
    challenger: str | None = None
    """The model that answers a part of the requests."""
    challenger_percent: float = 0
    shadow: str | None = None
    """The model that is asked after the answer is out."""
    shadow_percent: float = 0
    previous: str | None = None
    """The champion before this one; it stays in the store."""
    reason: str = ""
    """Why there is no champion."""
    stale: str = ""
    """Why the registry's last word is not known, or not followed; empty where the champion is what it says."""
    held_back: dict[str, str] = {}
    """Why a model that the registry names as challenger or shadow is not loaded, by role."""
    refused: tuple[Refused, ...] = ()
    """The versions that stay out until they change."""

    semantic_versions: dict[str, str] = {}
    """What the registry calls the models beside their numbers, such as `2.1.0`, by tag in the model store."""

    @property
    def tags(self) -> list[str]:
        """The models to have in memory, the one that answers first."""
        tags = (self.champion, self.challenger, self.shadow, self.staged)
        return list(dict.fromkeys(tag for tag in tags if tag is not None))


class Report(msgspec.Struct, frozen=True):
    """What one worker has made of the state."""

    pid: int
    serving: str | None
    loaded: tuple[str, ...]
    broken: dict[str, str]
    """Why a model could not be loaded, by tag."""


def state_path(run_directory: Path) -> Path:
    """Returns the file that the workers watch."""
    return run_directory / "state.json"


def read_state(run_directory: Path) -> State | None:
    """Returns the state; None where there is none that can be read."""
    try:
        return msgspec.json.decode(state_path(run_directory).read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError):
        return None


def write_state(run_directory: Path, state: State) -> None:
    """Tells the workers."""
    write_aside(state_path(run_directory), state)


def note_asked(run_directory: Path) -> None:
    """Tells that the registry has answered just now."""
    with contextlib.suppress(OSError):  # of a full disk, for one; the time is then an old one
        (run_directory / "asked").touch()


def read_asked(run_directory: Path) -> float | None:
    """Returns when the registry answered last, in seconds since 1970; None where it never did."""
    try:
        return (run_directory / "asked").stat().st_mtime
    except OSError:
        return None


def write_report(run_directory: Path, report: Report) -> None:
    """Tells the sync process."""
    folder = run_directory / "workers"
    folder.mkdir(exist_ok=True)
    write_aside(folder / f"{report.pid}.json", report)


def read_reports(run_directory: Path) -> dict[int, Report]:
    """Returns the reports of the workers that live, by process; removes those of the dead."""
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
    """Writes a file as JSON, at once or not at all."""
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
    """Returns the pipe, which is made if there is none."""
    pipe = wake_path(run_directory)
    if not pipe.exists():
        os.mkfifo(pipe, 0o600)
    return pipe


def wake(run_directory: Path) -> None:
    """Makes the sync process ask the registry at once, if it is there and not awake already."""
    with contextlib.suppress(OSError):
        pipe = os.open(wake_path(run_directory), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, b"!")
        finally:
            os.close(pipe)
