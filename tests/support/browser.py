"""Pages in a real browser."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def chromium(folder: Path, url: str, *options: str) -> tuple[str, str]:
    """Renders a page for seven seconds of its own time; returns its elements, and what it said on the console."""
    if shutil.which("chromium") is None:
        missing = "needs chromium: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    done = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder}/browser",
            "--virtual-time-budget=7000",
            "--enable-logging=stderr",
            *options,
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
