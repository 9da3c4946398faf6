"""A real nginx with the very configuration that ships, in front of servers of a test."""

import contextlib
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.compose.configuring import NGINX_CONF, tool
from tests.support.environment import free_port, wait_until

PACKAGE = "nginx"


def rendered(folder: Path, port: int, addresses: list[str], **times: str) -> str:
    """Returns nginx.conf with what has to differ outside of its container, and nothing else.

    Args:
        folder: in the place of /tmp.
        port: that nginx listens on.
        addresses: `host:port` of the model servers.
        times: other values of directives that are times, to wait less long.
    """
    text = NGINX_CONF.read_text()
    assert text.count("/tmp/") == 6
    replacements = {"listen 8080;": f"listen 127.0.0.1:{port};"}
    for number, address in enumerate(addresses, 1):
        assert text.count(f"server model-server-{number}:3000") == 2
        text = text.replace(f"server model-server-{number}:3000", f"server {address}")
    for name, value in times.items():
        (line,) = re.findall(rf"^ +{name} [^;]+;", text, re.MULTILINE)
        replacements[line] = f"{name} {value};"
    for old, new in replacements.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.replace("/tmp/", f"{folder}/")


class Balancer:
    """A running nginx."""

    def __init__(self, url: str, log_file: Path) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=60)
        self._log_file = log_file

    @property
    def log(self) -> list[dict[str, Any]]:
        """A line for each request so far."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    @property
    def lines(self) -> list[str]:
        """Everything that it printed, errors among it."""
        return self._log_file.read_text().splitlines()

    def logged(self, request_id: str) -> dict[str, Any]:
        """The line of a request, which is written after its answer."""
        found = wait_until(
            lambda: [line for line in self.log if line["request_id"] == request_id],
            5,
            f"{request_id} is logged",
        )
        assert len(found) == 1
        return dict(found[0])


@contextlib.contextmanager
def running_nginx(*addresses: str, largest_file_bytes: int | None = None, **times: str) -> Iterator[Balancer]:
    """Runs nginx as somebody without rights, after it has checked its configuration.

    Args:
        addresses: of the model servers.
        largest_file_bytes: to write more fails, as it does where a disk is full.
        times: other values of directives that are times.
    """
    binary = tool("nginx", PACKAGE)
    folder = Path(tempfile.mkdtemp())  # not pytest's: nobody else may look into that
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    port = free_port()
    (folder / "nginx.conf").write_text(rendered(folder, port, list(addresses), **times))
    (folder / "nginx.conf").chmod(0o644)
    log_file = folder / "log"
    log_file.touch()
    log_file.chmod(0o666)
    command = [binary, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with log_file.open("ab") as log:  # a pipe is root's: /dev/stdout could not be opened
        checked = subprocess.run([*command, "-t"], stdout=log, stderr=log, timeout=30, **user)
        assert checked.returncode == 0, log_file.read_text()
        assert "[warn]" not in log_file.read_text()
        command += ["-g", "daemon off;"]
        if largest_file_bytes is not None:
            # Python ignores the signal that would end nginx there, and so does what it starts.
            user["restore_signals"] = False
            command = ["prlimit", f"--fsize={largest_file_bytes}", *command]
        process = subprocess.Popen(command, stdout=log, stderr=log, **user)
    balancer = Balancer(f"http://127.0.0.1:{port}", log_file)

    def listens() -> bool:
        assert process.poll() is None, log_file.read_text()
        with contextlib.suppress(httpx.TransportError):
            return balancer.http.get("/is-it-up").status_code == 404
        return False

    try:
        wait_until(listens, 10, "nginx listens")
        yield balancer
    finally:
        balancer.http.close()
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)
