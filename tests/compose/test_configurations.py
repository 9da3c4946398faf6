"""What Prometheus and Alertmanager are given, by their own tools."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.compose.configuring import ALERTMANAGER, PROMETHEUS, SLACK_AND_EMAIL, tool
from tests.kubernetes.queries import rules


def told(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration_and_its_rules() -> None:
    said = told(tool("promtool", "prometheus"), "check", "config", str(PROMETHEUS))
    assert f"{len(rules())} rules found" in said


@pytest.mark.parametrize("file", [ALERTMANAGER, SLACK_AND_EMAIL])
def test_amtool_takes_the_configuration(file: Path) -> None:
    told(tool("amtool", "prometheus-alertmanager"), "check-config", str(file))


def test_both_configurations_leave_out_the_same() -> None:
    one, other = (yaml.safe_load(file.read_text()) for file in (ALERTMANAGER, SLACK_AND_EMAIL))
    assert one["inhibit_rules"] == other["inhibit_rules"]


@pytest.mark.parametrize(
    ("alert", "receiver"),
    [
        ("ModelServerGone", "slack-and-email"),
        ("ModelServerSlow", "slack"),
        ("ModelFeatureDrift", "model-owners"),
        ("ModelPredictionShift", "model-owners"),
        ("ModelMissingValues", "model-owners"),
        ("ModelManyFeaturesDrift", "slack-and-email,model-owners"),
    ],
)
def test_alerts_go_to_those_who_can_do_something(alert: str, receiver: str) -> None:
    (rule,) = (rule for rule in rules() if rule.get("alert") == alert)
    command = (tool("amtool", "prometheus-alertmanager"), "config", "routes", "test")
    labels = (f"severity={rule['labels']['severity']}", f"alertname={alert}")
    assert told(*command, f"--config.file={SLACK_AND_EMAIL}", *labels).strip() == receiver


@pytest.mark.parametrize(
    "severity", sorted({rule["labels"]["severity"] for rule in rules() if "alert" in rule})
)
def test_every_severity_is_told(severity: str) -> None:
    command = (tool("amtool", "prometheus-alertmanager"), "config", "routes", "test")
    assert told(*command, f"--config.file={ALERTMANAGER}", f"severity={severity}").strip() == "webhook"
