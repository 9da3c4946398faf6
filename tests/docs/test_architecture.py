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
    assert rooms() <= set(re.findall(r"^\| `([a-z/]+/)` \| ", ARCHITECTURE, re.MULTILINE))


def test_every_folder_of_scripts_is_named() -> None:
    folders = {f"{path.parent.name}/" for path in (ROOT / "scripts").glob("*/__init__.py")}
    assert folders <= set(re.findall(r"`([a-z]+/)`", ARCHITECTURE))


def test_the_rooms_are_in_the_order_of_the_import_rule() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer for layer in contracts[0]["layers"] if f"{layer}/" in rooms()]
    assert re.findall(r"^\| `([a-z]+)/` \| ", ARCHITECTURE, re.MULTILINE) == layers


@pytest.mark.parametrize("text", [ARCHITECTURE, CONTRIBUTING], ids=["architecture", "contributing"])
def test_every_path_is_there(text: str) -> None:
    """Files, folders, modules in diagrams; in serving/ and scripts/, named from the folder that is spoken of."""
    named = set(re.findall(r"`([a-z0-9_.]+/[a-z0-9_./]*|[a-z0-9_]+\.(?:py|md|toml|yaml))`", text))
    named |= {f"{module}.py" for module in re.findall(r"\[([a-z]+/[a-z0-9]+)\]", text)}
    roots = [ROOT, *(path.parent for path in ROOT.glob("s*/**/__init__.py")), ROOT / "tests" / "docs"]
    assert named
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []


def test_every_command_is_a_target_of_make() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", CONTRIBUTING))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
