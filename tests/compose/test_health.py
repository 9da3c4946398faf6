"""A model server of compose.yaml is healthy when it has a model: `docker compose up --wait` waits for that."""

import os
import subprocess
import sys

import pytest

from tests.compose.configuring import MODEL_SERVERS, service
from tests.compose.conftest import Start
from tests.support.environment import ROOT, free_port
from tests.support.services import Service


def exit_code(name: str, url: str) -> int:
    """Asks what Docker asks, of a server on another port."""
    _, _, *arguments = service(name)["healthcheck"]["test"]
    environment = os.environ | {"BENTOML_PORT": url.rpartition(":")[2]}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, timeout=30).returncode


@pytest.mark.parametrize("name", MODEL_SERVERS)
def test_a_server_with_a_model_is_healthy(name: str, servers: list[Service]) -> None:
    assert exit_code(name, servers[0].url) == 0


@pytest.mark.parametrize("name", MODEL_SERVERS)
def test_a_server_that_is_gone_is_not(name: str) -> None:
    assert exit_code(name, f"http://127.0.0.1:{free_port()}") == 1


def test_a_server_without_a_model_is_not_and_lives(start: Start) -> None:
    with start(SERVING_MODEL_NAME="nobody-has-registered-it") as without:
        assert without.http.get("/livez").status_code == 200
        assert [exit_code(name, without.url) for name in MODEL_SERVERS] == [1, 1]
