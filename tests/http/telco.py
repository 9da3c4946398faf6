"""The Telco model that `scripts/train.py` registers, trained and prepared once for all tests that want it."""

import contextlib
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sklearn.ensemble import RandomForestClassifier

from scripts.train import main
from scripts.training import evaluation, pipeline
from tests.support.environment import TELCO, tracking
from tests.support.models import copy_registry, fill_registry
from tests.support.prepared import prepare_all
from tests.support.shared import once

needs_telco = pytest.mark.skipif(not TELCO.is_file(), reason=f"the Telco file is not at {TELCO}")


def telco_registry(folder: Path) -> str:
    """Makes a registry of a test's own in the folder, with the model as `telco@production`; returns its URI."""
    return copy_registry(once("telco", _make), folder)


def _make(folder: Path) -> None:
    uri = fill_registry(folder, {})
    command = ["--data", str(TELCO), "--target", "Churn", "--name", "telco", "--promote"]
    with (
        tracking(uri),
        # How good it is, is not the claim, and a forest of 100 trees is compiled as one of 20 is.
        mock.patch.object(evaluation, "N_FOLDS", 2),
        mock.patch.object(pipeline, "RandomForestClassifier", small_forest),
        mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": uri}),
        # The artifacts land where it is run: beside the registry.
        contextlib.chdir(folder),
    ):
        assert main([*command, "--estimator", "forest"]) == 0
    prepare_all(uri)


def small_forest(n_estimators: int, **more: Any) -> RandomForestClassifier:
    """A fifth of the forest that is asked for."""
    return RandomForestClassifier(n_estimators // 5, **more)
