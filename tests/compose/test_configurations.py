"""What Prometheus and Alertmanager are given, by their own tools."""

import subprocess

import pytest

from tests.compose.configuring import ALERTMANAGER, PROMETHEUS, tool
from tests.kubernetes.queries import rules


def told(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration_and_its_rules() -> None:
    said = told(tool("promtool", "prometheus"), "check", "config", str(PROMETHEUS))
    assert f"{len(rules())} rules found" in said


def test_amtool_takes_the_configuration() -> None:
    told(tool("amtool", "prometheus-alertmanager"), "check-config", str(ALERTMANAGER))


@pytest.mark.parametrize(
    "severity", sorted({rule["labels"]["severity"] for rule in rules() if "alert" in rule})
)
def test_every_severity_is_told(severity: str) -> None:
    command = (tool("amtool", "prometheus-alertmanager"), "config", "routes", "test")
    assert told(*command, f"--config.file={ALERTMANAGER}", f"severity={severity}").strip() == "webhook"
