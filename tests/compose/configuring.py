"""What is in `compose.yaml`, as Docker Compose itself reads it, and in the files that it mounts."""

import functools
import ipaddress
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environment import ROOT

FILE = ROOT / "compose.yaml"
NGINX_CONF = ROOT / "nginx" / "nginx.conf"
MONITORING = ROOT / "monitoring"
PROMETHEUS = MONITORING / "prometheus" / "prometheus.yaml"
ALERTMANAGER = MONITORING / "alertmanager" / "alertmanager.yaml"
SLACK_AND_EMAIL = ALERTMANAGER.with_name("slack-and-email.yaml")
GRAFANA = MONITORING / "grafana"

PASSWORDS = {"DATABASE_PASSWORD": "of the database", "GRAFANA_PASSWORD": "of Grafana"}
SERVICES = tuple(yaml.safe_load(FILE.read_text())["services"])
MODEL_SERVERS = tuple(name for name in SERVICES if name.startswith("model-server-"))


COMPOSE_PLUGINS = [
    f"{folder}/docker/cli-plugins" for folder in ("/usr/libexec", "/usr/lib", "/usr/local/lib")
]
"""Where Docker's client finds it; by itself it runs without the client."""


def tool(name: str, package: str) -> str:
    """Returns the path of a program; where it is not installed the test is skipped, but fails in CI."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", *COMPOSE_PLUGINS]
    found = shutil.which(name, path=":".join(folders))
    if found is None:
        missing = f"{name} (Debian's package {package}) is not installed"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return found


def read_compose(**variables: str) -> "subprocess.CompletedProcess[str]":
    """Has Docker Compose check the file, with no more than these variables set."""
    command = [tool("docker-compose", "docker-compose"), "--file", str(FILE), "config", "--format", "json"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd="/")


@functools.cache
def compose() -> dict[str, Any]:
    """Returns the whole of it, with every default filled in."""
    told = read_compose(**PASSWORDS)
    assert (told.returncode, told.stderr) == (0, "")
    content: dict[str, Any] = json.loads(told.stdout)
    return content


def service(name: str) -> dict[str, Any]:
    """Returns one of its services."""
    found: dict[str, Any] = compose()["services"][name]
    return found


def mounted(name: str, inside: str) -> Path:
    """Returns the file of this checkout that a service finds under a path."""
    binds = {
        Path(one["target"]): Path(one["source"]) for one in service(name)["volumes"] if one["type"] == "bind"
    }
    for target, source in binds.items():
        if Path(inside).is_relative_to(target):
            return source / Path(inside).relative_to(target)
    raise AssertionError(f"nothing of {name} is mounted at {inside}")


def listens(name: str) -> set[int]:
    """Returns the ports of a service that are published."""
    return {port["target"] for port in service(name).get("ports", [])}


def seconds(duration: str) -> float:
    """Returns what Compose or nginx calls a time, such as `1m10s` or `100ms`."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[smh])", duration))


def directive(name: str) -> str:
    """Returns the value of a directive that occurs once in nginx.conf."""
    (value,) = re.findall(rf"^\s*{name}\s+([^;]+);", NGINX_CONF.read_text(), re.MULTILINE)
    return str(value)


def network() -> tuple[ipaddress.IPv4Network, ipaddress.IPv4Network]:
    """Returns the addresses of the services' network, and those of them that are given out at random."""
    (config,) = compose()["networks"]["default"]["ipam"]["config"]
    return ipaddress.IPv4Network(config["subnet"]), ipaddress.IPv4Network(config["ip_range"])
