"""`scripts/push_image.sh`: what it refuses before docker is asked."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.environment import ROOT, clean_environment

DIGEST = "sha256:" + "a" * 64


def push(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Calls it with a docker that says what it was asked."""
    docker = folder / "docker"
    docker.write_text('#!/bin/sh\necho "docker was asked: $*" >&2\nexit 1\n')
    docker.chmod(0o755)
    return subprocess.run(
        ["scripts/push_image.sh", *arguments],
        cwd=ROOT,
        env=clean_environment() | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["--help"],
        ["model-server"],
        ["registry.example/model-server"],
        ["registry.example:5000/model-server"],
        ["registry.example/model-server:"],
        [f"registry.example/model-server@{DIGEST}"],
        [f"registry.example/model-server:1.0.0@{DIGEST}"],
        ["registry.example/model-server:1.0.0", "latest"],
    ],
)
def test_what_is_no_image_with_a_tag_is_refused_at_once(tmp_path: Path, arguments: list[str]):
    done = push(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "push_image.sh: expected an image with a tag: scripts/push_image.sh registry.example/model-server:1.0.0\n"
    )


@pytest.mark.parametrize(
    "image", ["m:1", "registry.example/team/model-server:1.0.0", "127.0.0.1:5000/team/model-server:v1_a.b-c"]
)
def test_an_image_with_a_tag_is_looked_for(tmp_path: Path, image: str):
    assert f"docker was asked: manifest inspect --verbose {image}" in push(tmp_path, image).stderr
