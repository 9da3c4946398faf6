"""The scripts in a Bento find all that they import there."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.environment import ROOT, clean_environment

IMPORT_ALL = """
import importlib, pathlib
for file in sorted(pathlib.Path("scripts").rglob("*.py")):
    importlib.import_module(".".join(file.with_suffix("").parts))
"""


def test_every_script_can_be_imported_from_the_files_of_the_bento(tmp_path: Path):
    content = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    for pattern in content["include"]:
        for file in ROOT.glob(pattern.removeprefix("/")):
            target = tmp_path / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scripts" / "replay.py").exists()
