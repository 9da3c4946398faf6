"""`make sbom`: all that is locked is told, and needs no network to be."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.environment import ROOT, clean_environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sbom")
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}
    done = subprocess.run(
        ["make", "sbom", f"DIST={made}"],
        cwd=ROOT,
        env=clean_environment() | nowhere,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.mark.parametrize("name", ["serving", "sealed"])
def test_it_names_every_locked_version(folder: Path, name: str):
    told = json.loads((folder / f"{name}.cdx.json").read_bytes())
    locked = re.findall(
        r"^([\w.-]+)==([^\s;\\]+)", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE
    )
    assert told["bomFormat"] == "CycloneDX"
    assert {(one["name"], one["version"]) for one in told["components"]} == set(locked)
