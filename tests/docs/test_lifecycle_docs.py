"""docs/lifecycle.md: its commands run, in their order, against a real registry and service."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx

from scripts.training.churn_sample import make_churn_sample
from tests.support.environment import ROOT, clean_environment
from tests.support.services import running_service

PAGE = (ROOT / "docs" / "lifecycle.md").read_text()


def commands() -> list[str]:
    """The lines that are to be pasted."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


def test_the_commands_of_the_page_take_a_model_to_its_users_and_back(tmp_path: Path) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    make_churn_sample(600, seed=1).to_csv(tmp_path / "customers.csv", index=False)
    make_churn_sample(300, seed=2).to_csv(tmp_path / "recent.csv", index=False)
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "SERVING_MODEL_NAME": "churn"}

    def paste(command: str, url: str = "") -> str:
        line = command.replace(".venv/bin/python", shlex.quote(sys.executable)).replace("$URL", url)
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    paste(".venv/bin/python scripts/train.py --promote")  # version 1, which is there before the page begins
    with running_service(tmp_path / "service", **environment) as service:
        service.wait_ready()

        def champion() -> str:
            return str(httpx.get(f"{service.url}/v1/models").json()["models"][0]["version"])

        said = {
            command.split()[1].partition("/")[2]: paste(command, service.url) for command in commands()[:3]
        }
        assert "registered: churn version 2" in said["train.py"]
        assert "checks met" in said["validate.py"]
        assert "all 1 service(s) answer with version 2" in said["promote.py"]
        assert champion() == "2"
        history, back = commands()[3:]
        assert "trained on June" in paste(history)
        paste(back, service.url)
        assert champion() == "1"
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["from"], line["to"]) for line in lines] == [
        ("promote", "1", "2"),
        ("rollback", "2", "1"),
    ]


def test_the_demonstration_ends_without_a_failed_request() -> None:
    done = subprocess.run(
        ["make", "demo-promotion"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"requests: [\d,]{4,} answered, 0 failed", done.stdout)
    assert "version 3 is refused" in done.stdout
    assert "went back from version 2 to 1" in done.stdout
