"""A registry whose model takes as long as a row says."""

import os
from pathlib import Path

import pytest

from serving.process.child import PARENT_VARIABLE
from tests.support.prepared import prepare_all
from tests.support.promotions import Registry, trapped


def patient_registry(folder: Path) -> Registry:
    """Makes one in the folder, with its version prepared."""
    registry = Registry(folder / "own", 1.0)
    registry.promote(registry.add(trapped("patient")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARENT_VARIABLE, str(os.getppid()))  # while it is prepared it takes no time
        prepare_all(registry.uri)
    return registry
