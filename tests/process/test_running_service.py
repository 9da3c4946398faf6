"""What the processes of a real service say and open: every line is JSON, and nothing but HTTP is on the network."""

import json
import stat
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.environment import wait_until
from tests.support.processes import run_directory
from tests.support.promotions import NAME, ROWS, Registry, nan_outputs, refused
from tests.support.services import Service, running_service

LISTENS = "0A"
"""Source: TCP_LISTEN, tcp_states.h of Linux."""


class Seen(NamedTuple):
    """Of a service from its start to its end."""

    port: int
    open_ports: set[int]
    """TCP ports that the parent of all its processes listens on."""
    unix_sockets: set[Path]
    """Paths that it listens on."""
    run_directory: Path
    mode: int
    """Of the run directory."""
    lines: list[dict[str, Any]]
    """Of its log."""


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    targets = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(str(descriptor.readlink()))
        except OSError:  # closed meanwhile
            continue
    return {target[8:-1] for target in targets if target.startswith("socket:[")}


def open_ports(pid: int) -> set[int]:
    """The TCP ports that a process listens on."""
    found, inodes = set(), sockets_of(pid)
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENS and inode in inodes:
                found.add(int(local.rpartition(":")[2], 16))
    return found


def unix_sockets(pid: int) -> set[Path]:
    """The paths of the UNIX sockets that a process has open."""
    inodes = sockets_of(pid)
    lines = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    return {Path(line[7]) for line in lines if len(line) > 7 and line[6] in inodes and line[7][0] == "/"}


def look_at(service: Service) -> dict[str, Any]:
    """What its processes have open."""
    parent = service.process.pid
    directory = run_directory(parent)
    assert directory is not None
    return {
        "port": int(service.url.rpartition(":")[2]),
        "open_ports": open_ports(parent),
        "unix_sockets": unix_sockets(parent),
        "run_directory": directory,
        "mode": stat.S_IMODE(directory.stat().st_mode),
    }


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("service")
    registry = Registry(folder / "own", 1.0)
    bad = registry.add(nan_outputs)
    with running_service(
        folder,
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_LOG_FORMAT="json",
        SERVING_MODEL_ALAIS="a typo",
    ) as service:
        service.wait_ready()
        service.predict(ROWS)
        registry.promote(bad)
        opened = look_at(service)
        wait_until(lambda: bad in refused(service), 60, "it is refused")
    return Seen(**opened, lines=[json.loads(line) for line in service.log.splitlines()])


def test_every_line_of_every_process_is_json(seen: Seen) -> None:
    assert all({"time", "level", "logger", "message"} <= set(line) for line in seen.lines)
    messages = [line["message"] for line in seen.lines]
    assert any("did you mean SERVING_MODEL_ALIAS?" in message for message in messages)
    assert any("are not finite" in message for message in messages)
    assert {line["logger"].partition(".")[0] for line in seen.lines} == {"serving", "bentoml"}


def test_its_parent_listens_on_no_port_but_that_of_http(seen: Seen) -> None:
    """Whoever reaches the control sockets of BentoML's process manager may have it run commands."""
    assert seen.open_ports == {seen.port}


def test_its_control_sockets_lie_where_no_other_user_comes(seen: Seen) -> None:
    assert {seen.run_directory / "control", seen.run_directory / "events"} <= seen.unix_sockets
    assert seen.mode == 0o700
