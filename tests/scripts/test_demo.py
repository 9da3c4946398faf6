"""The README's first command as a user types it, and the `curl` that it and the README print."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.environment import ROOT, clean_environment, free_port, wait_until


class Demo:
    """`make serve` of a copy of the checkout, with the virtual environment of this one."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log_file = folder / f"make-{self.port}.log"
        environment = clean_environment() | {"BENTOML_HOME": str(folder / "bentoml"), "PORT": str(self.port)}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                ["make", "serve"],
                cwd=folder / "checkout",
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_for_greeting(self) -> str:
        """The command that it prints."""
        try:
            found = wait_until(
                lambda: re.search(r"^try it: +(.*)$", self.log, re.MULTILINE), 120, "a greeting"
            )
        except BaseException:
            print(self.log)
            raise
        return str(found[1])

    def stop(self) -> None:
        """As Ctrl-C does: to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    checkout = folder / "checkout"
    left_out = shutil.ignore_patterns(
        ".venv", ".git", "mlruns", "mlflow.db*", "*_cache", ".hypothesis", "__pycache__"
    )
    shutil.copytree(ROOT, checkout, ignore=left_out)
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    if not (ROOT / ".venv" / "serving.stamp").exists():
        pytest.fail("run the tests with `make test`: there is no installed .venv")
    for stamp in ("requirements/serving.txt", "requirements/dev.txt"):
        os.utime(checkout / stamp, (0, 0))  # a copy is no newer than what is installed
    return folder


def answer_of(command: str) -> dict[str, object]:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_make_serve_trains_serves_and_greets_and_the_second_start_only_serves(folder: Path) -> None:
    first = Demo(folder)
    try:
        readme = (ROOT / "README.md").read_text()
        answer = answer_of(first.wait_for_greeting())
        assert answer["model"] == {"name": "churn", "version": "1"}
        (block,) = re.findall(r"^\$ (curl .*?\]\}')", readme, re.MULTILINE | re.DOTALL)
        answer = answer_of(block.replace("localhost:3000", f"localhost:{first.port}"))
        (prediction,) = answer["predictions"]
        shown = json.loads(re.search(r"^(\{\"model\".*\})$", readme, re.MULTILINE)[1])
        assert shown["predictions"] == [prediction]
        assert prediction["label"] in prediction["probabilities"]
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
        assert "generated" in first.log
    finally:
        first.stop()
    assert "Traceback" not in first.log

    second = Demo(folder)
    try:
        answer = answer_of(second.wait_for_greeting())
        assert answer["model"] == {"name": "churn", "version": "1"}
        assert "installing" not in second.log
        assert "generated" not in second.log
        assert "prepared churn" not in second.log
    finally:
        second.stop()


def test_in_a_registry_that_is_named_nothing_is_trained_unless_it_is_asked_for(folder: Path, tmp_path: Path):
    """With a mistyped name it would be a demo that everybody sees."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    environment = clean_environment() | {"MLFLOW_TRACKING_URI": uri, "SERVING_MODEL_NAME": "chrun"}
    for demo, trains in ((), False), (("DEMO=1",), True):
        planned = subprocess.run(
            ["make", "--dry-run", "serve", *demo],
            cwd=folder / "checkout",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        (shell,) = re.findall(r"^if .*?; fi$", planned, re.MULTILINE | re.DOTALL)
        ran = subprocess.run(
            ["sh", "-c", shell.replace(".venv/bin/python scripts/train.py", "echo trains")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("trains" in ran.stdout) is trains
