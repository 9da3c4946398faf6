"""A real PostgreSQL for tests."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import free_port, wait_until

USER = "nobody"
"""Runs the server if the tests run as root, which PostgreSQL rejects."""


class PostgreSQL:
    """A server with an empty database."""

    def __init__(self, folder: Path, programs: Path, port: int) -> None:
        self._folder, self._programs, self._port = folder, programs, port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://postgres:secret@127.0.0.1:{port}/postgres"
        self._run("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync")

    def _command(self, program: str, *arguments: str) -> list[str]:
        prefix = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        return [*prefix, str(self._programs / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(self._command(program, *arguments), check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self._process = subprocess.Popen(
            self._command(
                "postgres",
                *("-D", str(self._folder / "data"), "-k", str(self._folder), "-p", str(self._port)),
                *("-h", "127.0.0.1", "-F"),
            ),
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        ready = self._command("pg_isready", "-h", "127.0.0.1", "-p", str(self._port))
        wait_until(
            lambda: subprocess.run(ready, check=False, capture_output=True, cwd="/").returncode == 0,
            30,
            "PostgreSQL answers",
        )

    def stop(self) -> None:
        """Stops it at once; its data stay."""
        if self._process is not None:
            self._run("pg_ctl", "-D", str(self._folder / "data"), "stop", "-m", "immediate")
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Runs a server; if PostgreSQL is not installed, the test is skipped, but fails in CI."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        missing = "needs PostgreSQL: apt-get install postgresql"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a short path: it has a socket
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        server = PostgreSQL(folder, Path(initdb).parent, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
