"""docs/lifecycle.md: its commands run, in their order, against a real registry and service."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from scripts import promote
from scripts.training.churn_sample import make_churn_sample
from serving.monitoring.prediction_log.reading import read_log
from serving.monitoring.quality.judgement import METRICS
from serving.prepare.sync.verdicts import parse_criterion
from tests.support.environment import ROOT, clean_environment, wait_until
from tests.support.fake_service import FakeService, compared
from tests.support.models import fill_registry
from tests.support.prepared import prepare_all
from tests.support.promotions import NAME, Registry
from tests.support.services import running_service

PAGE = (ROOT / "docs" / "lifecycle.md").read_text()
AUTOPILOT = PAGE.partition("\n## Autopilot\n")[2].partition("\n## ")[0]

IN_PROCESS = {"train", "promote", "history", "rollback", "shadow"}
"""Scripts that `make demo-promotion` runs as processes; the others are run so here."""


def commands() -> list[str]:
    """The lines that are to be pasted, but for the one below; tests/scripts/deploying has what runs in a cluster."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.splitlines()
        if line.startswith("$ .venv/bin/python ") and "--when-better" not in line
    ]


def test_the_commands_of_the_page_take_a_model_to_its_users_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    make_churn_sample(600, seed=1).to_csv(tmp_path / "customers.csv", index=False)
    make_churn_sample(300, seed=2).to_csv(tmp_path / "recent.csv", index=False)
    monkeypatch.chdir(tmp_path)
    uri = fill_registry(tmp_path, {})
    log = tmp_path / "log"
    environment = {
        "MLFLOW_TRACKING_URI": uri,
        "SERVING_MODEL_NAME": "churn",
        "SERVING_LOG_PREDICTIONS": str(log),
        "BENTOML_HOME": str(tmp_path / "home"),
    }

    def paste(command: str, url: str = "") -> str:
        line = command.replace("$URL", url)
        python, script, *arguments = shlex.split(line)
        assert python == ".venv/bin/python"
        if Path(script).stem not in IN_PROCESS:
            done = subprocess.run(
                ["bash", "-c", line.replace(python, shlex.quote(sys.executable))],
                env=clean_environment() | environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            return done.stdout
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main(arguments)
        said = capsys.readouterr()
        assert code == 0, f"{line}\n{said.out}{said.err}"
        return said.out

    paste(
        ".venv/bin/python scripts/train.py --promote --estimator linear"
    )  # version 1, which is there before the page begins
    training, validation, replay, shadow, no_shadow, promotion, history, back = commands()
    assert "registered: churn version 2" in paste(training)
    validated = paste(validation)
    assert "checks met" in validated
    assert "warning" not in validated
    prepare_all(uri)
    with running_service(tmp_path / "service", **environment, SERVING_SHADOW_ALIAS="shadow") as service:
        service.wait_ready()

        def champion() -> str:
            return str(httpx.get(f"{service.url}/v1/models").json()["models"][0]["version"])

        assert champion() == "1"
        rows = make_churn_sample(100, seed=3).drop(columns="churn")
        asked = {"instances": rows.astype(object).where(rows.notna(), None).to_dict("records")}
        assert httpx.post(f"{service.url}/v1/predict", json=asked).status_code == 200
        wait_until(lambda: read_log(log).num_rows == 100, 20, "the rows are logged")
        assert "churn version 2 was asked 100 rows that version 1 answered" in paste(replay)
        assert f"{service.url} has version 2 as shadow (one address" in paste(shadow, service.url)
        assert f"{service.url} has no shadow (one address" in paste(no_shadow, service.url)
        assert champion() == "1"
        assert f"{service.url} answers with version 2 (one address" in paste(promotion, service.url)
        assert champion() == "2"
        assert "trained on June" in paste(history)
        paste(back, service.url)
        assert champion() == "1"
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["from"], line["to"]) for line in lines] == [
        ("shadow", None, "2"),
        ("shadow", "2", None),
        ("promote", "1", "2"),
        ("rollback", "2", "1"),
    ]


def test_the_command_that_waits_for_a_verdict_promotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (command,) = re.findall(
        r"^\$ \.venv/bin/python scripts/promote\.py (.*--when-better.*)", PAGE, re.MULTILINE
    )
    registry = Registry(tmp_path / "registry", 1.0, 0.1)
    registry.client.set_registered_model_alias(NAME, "challenger", "2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setenv("SERVING_MODEL_NAME", NAME)
    with FakeService(lambda: registry.aliases).running() as service:
        service.quality = lambda: compared("1", "2", 2_000, (0.8, 0.9))
        assert promote.main(shlex.split(command.replace("$URL", service.url))) == 0
    assert "version 2 is better: accuracy 0.9 against 0.8 of version 1" in capsys.readouterr().out
    assert registry.aliases["production"] == "2"


def test_the_values_of_the_autopilots_tag_are_those_it_takes():
    cells = re.findall(r"^\| (`.*?) \|", AUTOPILOT, re.MULTILINE)
    values = [value for cell in cells for value in re.findall(r"`(.*?)`", cell)]
    assert {*METRICS, "true", "false"} <= {*values}
    assert [value for value in values if parse_criterion(value) is None] == ["false"]
