"""The service and the scripts with tracking servers and models of older MLflow. `make registries`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest

from scripts.training.churn_sample import make_churn_sample
from serving.errors import ModelRefused
from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.prepare.registry.lookup import look_up
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import ROOT, clean_environment, free_port, tracking, wait_until
from tests.support.served import answer
from tests.support.services import running_service

# The process that prepares shows no warnings: the versions of libraries are compared before.
pytestmark = pytest.mark.filterwarnings("ignore:Trying to unpickle estimator")

HERE = Path(__file__).parent
VERSIONS = sorted(file.stem for file in (HERE / "requirements").glob("*.in"))

WITHOUT_ALIASES = {"2.2"}
NOT_READ = {
    # Their trees have no column for missing values, which scikit-learn 1.3 added; its losses moved with 1.4.
    "2.2": {"forest": "cannot load it: ValueError", "boosted": "made of sklearn.ensemble._gb_losses"},
    "2.3": {"forest": "cannot load it: ValueError", "boosted": "made of sklearn.ensemble._gb_losses"},
    # Cython's names of its losses' constructors changed with 1.6.
    "2.13": {"boosted": "cannot load it: TypeError"},
}
"""What a model's pickle comes to if `SERVING_LIBRARY_VERSIONS=off` lets it be read."""


class Old:
    """A running server of an older MLflow, with models that its own client has logged."""

    def __init__(self, version: str, uri: str, folder: Path, answers: dict[str, Any]) -> None:
        self.version, self.uri, self.folder = version, uri, folder
        self.rows = pd.DataFrame(answers["rows"])
        self.answers = answers["answers"]
        self.sklearn = answers["sklearn"]
        self.has_aliases = version not in WITHOUT_ALIASES

    def settings(self, **more: Any) -> Settings:
        return Settings(MLFLOW_TRACKING_URI=self.uri, **({"library_versions": "off"} | more))


@contextlib.contextmanager
def running(version: str, backend: str, folder: Path) -> Iterator[Old]:
    bin_folder = HERE / ".venvs" / version / "bin"
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    options = {
        "sqlite": ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"),
        "files": (
            *("--backend-store-uri", f"{folder}/mlruns", "--no-serve-artifacts"),
            *("--default-artifact-root", f"{folder}/artifacts"),
        ),
    }[backend]
    environment = clean_environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(bin_folder / "python", "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1", *options),
            ],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{uri}/health").status_code == 200
        return False

    try:
        wait_until(answers, 120, "the tracking server answers")
        file = folder / "answers.json"
        subprocess.run(
            [bin_folder / "python", HERE / "log_models.py", uri, file],
            env=environment,
            cwd=folder,
            check=True,
        )
        yield Old(version, uri, folder, json.loads(file.read_text()))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((version, backend), marks=pytest.mark.xdist_group(f"{version}-{backend}"))
        for version in VERSIONS
        for backend in ("sqlite", "files")
    ],
    ids="-".join,
)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    version, backend = request.param
    folder = tmp_path_factory.mktemp(f"{version}-{backend}")
    with running(version, backend, folder) as server, tracking(server.uri):
        yield server


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))


def test_stages_and_aliases_are_found_by_both_clients(old: Old):
    chosen: list[tuple[dict[str, Any], str]] = [
        ({}, "1"),  # the stage of the alias' name
        ({"model_stage": "Production"}, "1"),
        ({"model_version": 2}, "2"),
    ]
    if old.has_aliases:
        chosen.append(({"model_alias": "blue"}, "2"))
    for more, version in chosen:
        settings = old.settings(model_name="linear", **more)
        found = look_up(settings)
        assert found is not None
        assert found == resolve(settings)
        assert found.champion.version == version


@pytest.mark.parametrize("name", ["linear", "forest", "boosted"])
def test_a_model_says_what_the_mlflow_says_that_logged_it(old: Old, name: str):
    settings = old.settings(model_name=name)
    why = NOT_READ.get(old.version, {}).get(name)
    if why is not None:
        with pytest.raises(ModelRefused, match=why) as refused:
            prepare(resolve(settings).champion, settings)
        assert f"it was logged with scikit-learn {old.sklearn} (here " in str(refused.value)
        return
    given = answer(LoadedModel(prepare(resolve(settings).champion, settings), settings), old.rows)
    own = old.answers[name]
    if own["probabilities"] is None:
        np.testing.assert_allclose(np.asarray(given.values).ravel(), own["pyfunc"], rtol=1e-12)
    else:
        np.testing.assert_allclose(given.probabilities, own["probabilities"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "forest", "boosted"])
def test_by_default_the_other_scikit_learn_is_named(old: Old, name: str):
    settings = old.settings(model_name=name, library_versions="minor")
    with pytest.raises(ModelRefused, match=rf"other libraries .*: scikit-learn {old.sklearn} \(here "):
        prepare(resolve(settings).champion, settings)


def test_a_running_service_answers_with_the_labels_of_its_pyfunc(old: Old, tmp_path: Path):
    environment = {
        "MLFLOW_TRACKING_URI": old.uri,
        "SERVING_MODEL_NAME": "linear",
        "SERVING_LIBRARY_VERSIONS": "off",
        "SERVING_ALLOW_PICKLE": "false",
    }
    with running_service(tmp_path / "service", is_cold=True, **environment) as service:
        answered = service.wait_ready().predict(old.rows.to_dict("records"))
    assert [one["label"] for one in answered["predictions"]] == old.answers["linear"]["pyfunc"]


class Scripts:
    """Runs them with the registry, as people do."""

    def __init__(self, uri: str, folder: Path) -> None:
        self._folder = folder
        self._environment = clean_environment() | {"MLFLOW_TRACKING_URI": uri}

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "scripts" / script, *arguments],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def says(self, script: str, *arguments: str) -> str:
        done = self.run(script, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refuses(self, script: str, *arguments: str) -> str:
        done = self.run(script, *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1
        return done.stderr


def test_the_scripts_train_promote_and_go_back(old: Old, tmp_path: Path):
    scripts = Scripts(old.uri, tmp_path)
    make_churn_sample(300, seed=2).to_csv(tmp_path / "recent.csv", index=False)
    follow = () if old.has_aliases else ("--stage", "Production")
    if old.has_aliases:
        assert "promoted: churn@production is version 1" in scripts.says("train.py", "--promote")
    else:
        assert "older than MLflow 2.3, and has no aliases" in scripts.refuses("train.py", "--promote")
        assert "registered: churn version 1" in scripts.says("train.py")
        assert "move the stage instead" in scripts.refuses("promote.py", "1")
        scripts.says("promote.py", "1", *follow)
    assert "registered: churn version 2" in scripts.says("train.py", "--seed", "1")
    rules = ("--data", "recent.csv", "--target", "churn", "--min", "accuracy=0.5")
    assert "1 check met" in scripts.says("validate.py", "2", *rules, *follow)
    assert "went from version 1 to 2" in scripts.says("promote.py", "2", *rules, *follow)
    assert resolve(old.settings(model_name="churn")).champion.version == "2"
    assert "went back from version 2 to 1" in scripts.says("rollback.py", *follow)
    history = scripts.says("history.py", *follow).splitlines()
    assert [line.split()[2] for line in history[2:]] == ["promote", "promote", "rollback"]

    settings = old.settings(model_name="churn", library_versions="strict")
    found = resolve(settings)
    assert found == look_up(settings)
    served = LoadedModel(prepare(found.champion, settings), settings)  # its digest is that of its tag
    rows = make_churn_sample(100, seed=3).drop(columns="churn")
    own = mlflow.sklearn.load_model("models:/churn/1")
    np.testing.assert_allclose(
        answer(served, rows).probabilities, own.predict_proba(rows), rtol=0, atol=1e-12
    )
