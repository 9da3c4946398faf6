"""The Telco model that `scripts/train.py` registers, trained and prepared once for all tests that want it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import ROOT, TELCO, clean_environment
from tests.support.models import copy_registry
from tests.support.prepared import prepare_all
from tests.support.shared import once

needs_telco = pytest.mark.skipif(not TELCO.is_file(), reason=f"the Telco file is not at {TELCO}")


def telco_registry(folder: Path) -> str:
    """Makes a registry of a test's own in the folder, with the model as `telco@production`; returns its URI."""
    return copy_registry(once("telco", _make), folder)


def _make(folder: Path) -> None:
    uri = f"sqlite:///{folder}/mlflow.db"
    command = ["scripts/train.py", "--data", str(TELCO), "--target", "Churn", "--name", "telco", "--promote"]
    command += ["--estimator", "forest"]
    # Run where the registry is: the artifacts land beside it.
    subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1:]],
        env=clean_environment() | {"MLFLOW_TRACKING_URI": uri},
        cwd=folder,
        check=True,
    )
    prepare_all(uri)
