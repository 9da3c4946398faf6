"""`make demo-promotion`: what it shows is so, and no request fails."""

import http.client
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import demo_promotion
from tests.support.environment import OURS, ROOT


class Unhurried(http.client.HTTPConnection):
    """Leaves processors to others between two requests."""

    def request(self, *arguments: Any, **more: Any) -> None:
        time.sleep(0.1)
        super().request(*arguments, **more)


# Its clients leave their connections to the end of its process.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_the_demonstration_ends_without_a_failed_request(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    # Beside other tests: less load, and more time, since a version is prepared with a low priority.
    unhurried = SimpleNamespace(HTTPConnection=Unhurried, HTTPException=http.client.HTTPException)
    monkeypatch.setattr(demo_promotion, "http", SimpleNamespace(client=unhurried))
    monkeypatch.setattr(demo_promotion, "SECONDS", 600)
    monkeypatch.setattr(sys, "argv", ["demo_promotion.py"])
    code = demo_promotion.main()
    out = capfd.readouterr().out
    assert code == 0, out
    assert "takes about a minute" in out.splitlines()[0]
    assert re.search(r"[\d,]{3,} requests answered, 0 failed", out)
    assert max(map(len, out.splitlines())) <= demo_promotion.COLUMNS
    said = " ".join(out.split())  # sentences are wrapped
    assert "version 3 is refused" in said
    assert "are not finite" in said
    assert "was rolled back to version 2" in said
    assert "went back from version 2 to 1" in said


def test_make_runs_it():
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "demo-promotion"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == ".venv/bin/python scripts/demo_promotion.py"
