"""`scripts/build_image.py`: which requirements an image gets; what it builds is tried in `tests/container`."""

import re
from pathlib import Path

import pytest
import yaml

from scripts import build_image
from tests.support.environment import ROOT

PACKAGE = re.compile(r"^([a-z0-9._-]+)==", re.MULTILINE)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The packages of each image that is built."""
    seen: list[set[str]] = []

    def look(options: object, command: list[str], folder: Path) -> str:
        if command[:2] == ["bentoml", "build"]:
            content = yaml.safe_load((ROOT / command[3]).read_text())
            requirements = ROOT / content["python"]["requirements_txt"]
            seen.append(set(PACKAGE.findall(requirements.read_text())))
        return ""

    monkeypatch.setattr(build_image, "_run", look)
    return seen


def test_a_live_image_has_the_client_of_s3_and_others_as_asked(built: list[set[str]]):
    assert build_image.main([]) == 0
    assert build_image.main(["--stores", "gcs, azure,s3"]) == 0
    plain, more = built
    assert "boto3" in plain
    assert not plain & {"google-cloud-storage", "azure-storage-blob"}
    assert more > plain | {"google-cloud-storage", "azure-storage-blob", "azure-identity"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stores", "gs"], "unknown store gs: expected gcs, azure"),
        (["--stores", "gcs", "--model-version", "1"], "a sealed image needs no artifact store"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_built(
    built: list[set[str]], capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    assert build_image.main(arguments) == 2
    assert words in capsys.readouterr().err
    assert built == []


@pytest.mark.parametrize("name", build_image.STORES)
def test_a_store_has_the_versions_of_serving(name: str):
    versions = [
        dict(
            re.findall(
                r"^([a-z0-9._-]+)==([^ \\;]+)", (ROOT / f"requirements/{file}.txt").read_text(), re.MULTILINE
            )
        )
        for file in ("serving", name)
    ]
    shared = versions[0].keys() & versions[1].keys()
    assert shared
    assert {one: versions[0][one] for one in shared} == {one: versions[1][one] for one in shared}
