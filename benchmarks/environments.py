"""One virtual environment per server under test, from locked requirements."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.failures import BenchmarkFailure
from benchmarks.places import REQUIREMENTS, VENVS

SHOWN_LINES = 8
"""Lines of an installer's error that are shown."""


def ensure_environment(name: str) -> Path:
    """Installs `requirements/<name>.txt` into `.venvs/<name>` unless it is up to date.

    Returns:
        The environment's `bin` folder.

    Raises:
        BenchmarkFailure: the installation failed; has the installer's last lines.
    """
    requirements, folder = REQUIREMENTS / f"{name}.txt", VENVS / name
    stamp = folder / "requirements.stamp"
    # The stamp is a copy of what is installed, so an interrupted install or an edit does not match.
    if stamp.is_file() and stamp.read_bytes() == requirements.read_bytes():
        return folder / "bin"
    print(f"  installing {requirements.name} (a few minutes the first time)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--require-hashes", "-r", str(requirements)])
    shutil.copy(requirements, stamp)
    return folder / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise BenchmarkFailure("its environment cannot be installed", "\n".join(lines[-SHOWN_LINES:]))


def installed_versions(bin_folder: Path) -> dict[str, str]:
    """Returns the version of each package of an environment, by name."""
    script = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    python = str(bin_folder / "python")
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603  # ours
    return dict(sorted(json.loads(done.stdout).items()))
