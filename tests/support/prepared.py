"""Prepared models, made once for all services of a run.

A process that prepares spends four seconds on imports, with a low priority. Here the versions of a registry that
many tests copy are prepared one after another in one process. A service finds them by what the registry says of
them and by the code that compiles, so it takes only what it would have made itself.
"""

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path
from unittest import mock

from tests.support.environment import tracking
from tests.support.shared import shared_folder


def prepare_all(registry: str) -> None:
    """Prepares every version in a registry that can be served."""
    from serving.errors import PrepareError
    from serving.prepare.build import prepare
    from serving.prepare.registry.lookup import look_up
    from serving.settings import load_settings

    file = registry.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file)) as database:
        versions = database.execute("SELECT name, version FROM model_versions").fetchall()
    for name, version in versions:
        environment = {
            "MLFLOW_TRACKING_URI": registry,
            "SERVING_MODEL_NAME": name,
            "SERVING_MODEL_VERSION": str(version),
            "SERVING_ALLOW_PICKLE": "true",
            "BENTOML_HOME": str(_home()),
        }
        with tracking(registry), mock.patch.dict(os.environ, environment), contextlib.suppress(PrepareError):
            settings = load_settings()
            wanted = look_up(settings)
            assert wanted is not None
            prepare(wanted.champion, settings)


def take_prepared(home: Path, registry: str, versions: set[str] | None = None) -> None:
    """Copies what is prepared of a registry's versions into a BENTOML_HOME.

    Args:
        home: of the service.
        registry: its URI; what lies behind another one than SQLite's is not known here.
        versions: only these.
    """
    scheme, _, file = registry.partition("sqlite:///")
    if scheme or not Path(file).exists():
        return
    with contextlib.closing(sqlite3.connect(file)) as database:
        runs = {
            run
            for run, version in database.execute("SELECT run_id, version FROM model_versions")
            if versions is None or str(version) in versions
        }
    for manifest in (_home() / "models").glob("*/*/manifest.json"):
        folder = manifest.parent
        target = home / "models" / folder.parent.name / folder.name
        if not target.exists() and json.loads(manifest.read_bytes())["run_id"] in runs:
            shutil.copytree(folder, target)


def _home() -> Path:
    return shared_folder() / "prepared"
