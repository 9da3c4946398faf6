"""An address where nothing can listen is one line, however the service is started."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.process.address import INSTEAD, wanted_address, why_not_listen
from tests.support.environment import ROOT, clean_environment


@pytest.fixture
def used_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(("options", "variables"), [(["-p", "{}"], {}), ([], {"BENTOML_PORT": "{}"})])
def test_a_port_that_is_in_use_ends_the_start_with_a_line(tmp_path: Path, used_port, options, variables):
    chosen = {name: value.format(used_port) for name, value in variables.items()}
    ended = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", *(option.format(used_port) for option in options)],
        cwd=ROOT,
        env=clean_environment() | {"BENTOML_HOME": str(tmp_path)} | chosen,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr) == ("", f"error: port {used_port} is in use; {INSTEAD}\n")


def test_other_addresses_where_nothing_can_listen_are_told():
    # 192.0.2.0/24 is for documentation, and on no machine. Source: RFC 5737.
    assert why_not_listen("192.0.2.1", 3000) == (
        "nothing can listen on 192.0.2.1 port 3000: Cannot assign requested address"
    )
    assert why_not_listen("127.0.0.1", 70_000) == f"port 70000 is not from 0 to 65535; {INSTEAD}"


def test_any_free_port_will_do():
    assert why_not_listen("127.0.0.1", 0) is None


def test_without_bentomls_command_there_is_no_address():
    assert wanted_address() is None
