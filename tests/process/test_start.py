"""`serving.process.start`: a folder that cannot be made is one line, and not a trace."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving.process.start import find_trouble
from tests.support.environment import ROOT, clean_environment


@pytest.mark.parametrize("name", ["BENTOML_HOME", "HOME"])
def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path, name: str):
    (tmp_path / "file").touch()
    environment = {key: value for key, value in clean_environment().items() if key != "BENTOML_HOME"}
    ended = subprocess.run(
        [sys.executable, "-m", "serving.process.start", "serve"],
        cwd=ROOT,
        env=environment | {name: str(tmp_path / "file" / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert line.startswith("error: the folder of prepared models (")
    assert name in line
    assert line.endswith("Not a directory")


def test_a_folder_that_can_be_made_is(tmp_path: Path):
    assert find_trouble({"BENTOML_HOME": str(tmp_path / "a" / "b")}) is None
    assert (tmp_path / "a" / "b").is_dir()


def test_what_follows_is_bentomls(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-m", "serving.process.start", "--version"],
        cwd=ROOT,
        env=clean_environment() | {"BENTOML_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "version" in ended.stdout
