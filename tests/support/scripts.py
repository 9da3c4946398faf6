"""The scripts, as they are called from a command line."""

import subprocess
import sys
import tempfile
from functools import cache

from tests.support.environment import ROOT, clean_environment


@cache
def help_of(script: str) -> str:
    """Returns what a script, such as `scripts/train.py`, says of its options; from any folder."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"],
            cwd=elsewhere,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, f"{script} --help\n{done.stdout}{done.stderr}"
    return done.stdout
