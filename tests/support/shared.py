"""What is made once for the whole run, by whichever test process needs it first."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "TESTS_SHARED"
"""In the environment of every test process of a run: the folder that they share."""


def make_shared_folder() -> Path | None:
    """Makes the folder, if this is the process that starts the others; returns it then."""
    if VARIABLE in os.environ:
        return None
    folder = Path(tempfile.mkdtemp(prefix="tests-shared-"))
    folder.chmod(0o755)  # containers read it as a user of their own
    os.environ[VARIABLE] = str(folder)
    return folder


def remove_shared_folder(folder: Path) -> None:
    """Removes it at the end of the run."""
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.pop(VARIABLE, None)


def shared_folder() -> Path:
    """Returns the folder."""
    return Path(os.environ[VARIABLE])


def once(name: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder that `make` has filled, now or before; nobody may change what is in it."""
    folder = shared_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_made = Path(f"{folder}.made")
        if not is_made.exists():
            make(folder)
            is_made.touch()
    return folder
