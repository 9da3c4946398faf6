"""docs/monitoring.md: what it pastes reads a real log."""

import datetime as dt
import re
import shlex
import subprocess
import sys
from pathlib import Path

from serving.monitoring.prediction_log.converter import run
from serving.monitoring.prediction_log.journal import Journal
from tests.monitoring.prediction_log.answered import finished, frame_of, numbers, options
from tests.support.environment import ROOT, clean_environment

PAGE = (
    (ROOT / "docs" / "monitoring.md").read_text().partition("\n## Prediction log\n")[2].partition("\n## ")[0]
)


def test_the_commands_and_the_code_of_the_page_read_a_log(tmp_path: Path):
    folder = tmp_path / "log"
    folder.mkdir()
    journal = Journal(folder)
    for role in ("champion", "challenger"):
        journal.append(frame_of(finished(numbers(3), role=role, request_id=role)))
    journal.close()
    assert run(options(tmp_path), dt.date(1970, 1, 1)).trouble == ""

    def pasted(text: str) -> str:
        return text.replace("/var/log/predictions", str(folder)).replace("2026-11-21", "2020-01-01")

    commands = re.findall(r"^\$ \.venv/bin/python (.*)", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = subprocess.run(
            [sys.executable, *shlex.split(pasted(command))],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "challenger" in done.stdout
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(pasted(code), names)
    assert names["table"]["score"].to_pylist() == [0.25, 0.5, 0.75] * 2  # type: ignore[index]
