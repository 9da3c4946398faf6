"""`scripts/verify_image.sh`: only what was signed, and by its digest."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.environment import ROOT, clean_environment

DIGEST = "sha256:" + "b" * 64

DOCKER = """#!/bin/sh
test "$1 $2 $3" = "buildx imagetools inspect" || exit 9
test -n "$DIGEST" || { echo "not found" >&2; exit 1; }
printf '{"digest": "%s"}' "$DIGEST"
"""

COSIGN = """#!/bin/sh
echo "$*" > "$CALLS"
echo '[{"critical": {}}]'
exit "$SIGNED"
"""

Verify = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    for name, content in (("docker", DOCKER), ("cosign", COSIGN)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)

    def call(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        told = {
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "DIGEST": DIGEST,
            "SIGNED": "0",
        }
        return subprocess.run(
            ["scripts/verify_image.sh", *arguments],
            cwd=ROOT,
            env=clean_environment() | told | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return call


@pytest.mark.parametrize(
    "image",
    [
        "registry.example:5000/team/model-server:1.0.0",
        f"registry.example:5000/team/model-server@{DIGEST}",
        f"registry.example:5000/team/model-server:1.0.0@{DIGEST}",
    ],
)
def test_what_is_signed_is_named_by_its_digest(verify: Verify, tmp_path: Path, image: str):
    done = verify(image, "^https://here/")
    exact = f"registry.example:5000/team/model-server@{DIGEST}"
    assert (done.returncode, done.stdout) == (0, f"{exact}\n"), done.stderr
    asked = (tmp_path / "calls").read_text()
    assert "--certificate-identity-regexp ^https://here/ " in asked
    assert asked.endswith(f" {exact}\n"), "it was verified by another name than it is deployed by"


@pytest.mark.parametrize("environment", [{"SIGNED": "1"}, {"DIGEST": ""}, {"DIGEST": "null"}])
def test_what_is_not_there_or_not_signed_is_not_named(verify: Verify, environment: dict[str, str]):
    done = verify("registry.example/model-server:1.0.0", "^https://here/", **environment)
    assert done.returncode != 0
    assert done.stdout == ""


def test_who_signed_it_has_to_be_said(verify: Verify):
    done = verify("registry.example/model-server:1.0.0")
    assert done.returncode != 0
    assert "expected a pattern of the signer" in done.stderr
