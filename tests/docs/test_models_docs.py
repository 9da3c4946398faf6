"""docs/models.md: its cells and commands run, and what they lead to is served with the model's own numbers."""

import re
import shlex
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from scripts import check
from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import ROOT, tracking
from tests.support.logged import answers
from tests.support.models import fill_registry
from tests.support.scripts import help_of

PAGE = (ROOT / "docs" / "models.md").read_text()
CELLS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)

X = pd.DataFrame(
    {"age": np.arange(60.0) % 37, "city": ["Bern", "Chur", "Thun"] * 20, "visits": np.arange(60) % 5}
)
Y = np.where((X["age"] > 18) ^ (X["city"] == "Chur"), "yes", "no")


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_requirements: None) -> Any:
    """A registry of its own, and the names that the page begins with."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    front = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    model = make_pipeline(front, RandomForestClassifier(5, random_state=0))
    uri = fill_registry(tmp_path / "registry", {})
    with tracking(uri):
        yield {"X": X, "y": Y, "model": model, "uri": uri}
    mlflow.sklearn.autolog(disable=True)


def run_cell(number: int, notebook: dict[str, Any]) -> None:
    exec(compile(CELLS[number], f"docs/models.md, cell {number}", "exec"), notebook)


def settings_of(notebook: dict[str, Any]) -> Settings:
    return Settings(MLFLOW_TRACKING_URI=notebook["uri"], model_name="churn")


def check_served(notebook: dict[str, Any]) -> LoadedModel:
    settings = settings_of(notebook)
    loaded = LoadedModel(prepare(resolve(settings).champion, settings), settings)
    served = answers(loaded, X.to_dict("records"))
    found = [list(entry["probabilities"].values()) for entry in served]
    np.testing.assert_allclose(found, notebook["model"].predict_proba(X), rtol=0, atol=1e-12)
    assert [entry["label"] for entry in served] == notebook["model"].predict(X).tolist()
    return loaded


@pytest.mark.filterwarnings("ignore")
def test_its_cells_have_a_model_served_however_it_was_logged(
    notebook: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    autologged, promoted, logged_with_skops = range(3)
    assert len(CELLS) == 3
    run_cell(autologged, notebook)
    run_cell(promoted, notebook)
    assert check_served(notebook).manifest.version == "1"

    mlflow.sklearn.autolog(disable=True)
    run_cell(logged_with_skops, notebook)
    notebook["logged"] = mlflow.last_logged_model()
    # Before it is promoted, as the page says.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", notebook["uri"])
    (command,) = (one for one in COMMANDS if "check.py" in one)
    python, script, *arguments = shlex.split(command.replace("$MODEL", notebook["logged"].model_uri))
    assert (python, script) == (".venv/bin/python", "scripts/check.py")
    assert check.main(arguments) == 0
    said = capsys.readouterr().out
    assert "it would be served: compiled" in said
    assert "it accepts the requests of version 1, which is in production" in said
    assert "null is refused in 'visits' (long)" in said
    assert "pickle" not in said
    run_cell(promoted, notebook)
    assert resolve(settings_of(notebook)).champion.version == "2"
    assert {file.name for file in (tmp_path / "bentoml" / "models" / "churn").glob("2-*")} == set()


def test_its_other_commands_take_these_options() -> None:
    others = [shlex.split(one) for one in COMMANDS if "check.py" not in one]
    assert [words[1] for words in others] == ["scripts/train.py"]
    for words in others:
        assert [word for word in words if word.startswith("--") and word not in help_of(words[1])] == []


@pytest.mark.filterwarnings("ignore")
def test_the_cell_of_the_readme_sets_the_alias_and_leads_here(notebook: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text()
    (cell,) = re.findall(r"^```python\n(info = mlflow.*?)^```", readme, re.DOTALL | re.MULTILINE)
    model = LogisticRegression(max_iter=50).fit(X[["age", "visits"]], Y)
    exec(
        compile(cell, "README.md", "exec"),
        notebook | {"mlflow": mlflow, "model": model, "X": X[["age", "visits"]]},
    )
    settings = Settings(MLFLOW_TRACKING_URI=notebook["uri"], model_name="telco")
    assert resolve(settings).champion.version == "1"
    assert "(docs/models.md)" in readme
