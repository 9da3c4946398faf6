"""`scripts/push_image.sh`: a real registry, of which no tag is moved."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.container.test_container import docker
from tests.support.environment import ROOT, clean_environment, free_port, wait_until

CONFIGURATION = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Its host and port."""
    port = free_port()
    file = tmp_path / "config.yml"
    file.write_text(CONFIGURATION.format(folder=tmp_path / "store", port=port))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(file)], stdout=log, stderr=log)

    def is_there() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/v2/").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(is_there, 30, "the registry answers")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def make_image(folder: Path, tag: str, content: str) -> None:
    """An image with one file in it."""
    (folder / "content").write_text(content)
    packed = subprocess.run(["tar", "-C", folder, "-c", "content"], capture_output=True, check=True)
    subprocess.run(["docker", "import", "-", tag], input=packed.stdout, capture_output=True, check=True)


def push(image: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["scripts/push_image.sh", image],
        cwd=ROOT,
        env=clean_environment() | {"INSECURE": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_an_image_is_pushed_once_under_a_tag(registry: str, tmp_path: Path) -> None:
    image = f"{registry}/team/model-server:1.0.0"
    make_image(tmp_path, image, "first")
    try:
        first = push(image)
        assert first.returncode == 0, first.stderr
        name, _, digest = first.stdout.strip().partition("@")
        assert name == f"{registry}/team/model-server"
        answer = httpx.head(
            f"http://{registry}/v2/team/model-server/manifests/1.0.0",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        assert answer.headers["Docker-Content-Digest"] == digest
        once_more = push(image)
        assert (once_more.returncode, once_more.stdout) == (0, first.stdout)
        assert once_more.stderr == f"push_image.sh: {image} exists already, with the same image\n"
        make_image(tmp_path, image, "second")
        again = push(image)
        assert (again.returncode, again.stdout) == (2, "")
        assert (
            again.stderr
            == f"push_image.sh: {image} exists already, with another image; push under a new tag\n"
        )
        assert (
            httpx.head(answer.url, headers=answer.request.headers).headers["Docker-Content-Digest"] == digest
        )
    finally:
        docker("image", "rm", "--force", image)


def test_where_nobody_can_tell_nothing_is_pushed(tmp_path: Path) -> None:
    image = f"127.0.0.1:{free_port()}/model-server:1.0.0"
    make_image(tmp_path, image, "first")
    try:
        done = push(image)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"push_image.sh: cannot check whether {image} exists: ")
    finally:
        docker("image", "rm", "--force", image)
