"""`docs/architecture.md` and `CONTRIBUTING.md`: the rooms, paths and commands that they name are there."""

import re
import tomllib

import pytest

from tests.support.environment import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def rooms() -> set[str]:
    """The packages of serving/, down to those that the import rule names."""
    found = {path.parent.relative_to(ROOT / "serving") for path in (ROOT / "serving").rglob("__init__.py")}
    return {f"{path}/" for path in found if len(path.parts) == 1 or path.parts[:1] == ("prepare",)}


def test_every_room_has_its_question() -> None:
    asked = set(re.findall(r"^\| `([a-z/]+/)` \| ", ARCHITECTURE, re.MULTILINE))
    assert rooms() <= asked


def test_every_room_is_in_the_import_rule() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = {
        module.strip().removeprefix("serving.").replace(".", "/")
        for contract in config["contracts"]
        for layer in contract.get("layers", [])
        for module in layer.split("|")
    }
    assert {room.rstrip("/") for room in rooms()} <= layers


@pytest.mark.parametrize("text", [ARCHITECTURE, CONTRIBUTING], ids=["architecture", "contributing"])
def test_every_path_is_there(text: str) -> None:
    named = set(re.findall(r"`((?:serving|tests|docs|scripts|k8s|monitoring|\.ci)/[a-z_./]*)`", text))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_command_is_a_target_of_make() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", CONTRIBUTING))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
