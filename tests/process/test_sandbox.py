"""Files that a worker may not open: by itself in a process, and in a real service with code of a user's own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from serving.process import sandbox
from tests.support.environment import ROOT, wait_until
from tests.support.models import REQUIREMENTS, fill_registry, register, tracking
from tests.support.processes import WORKER, child_processes, run_directory
from tests.support.services import running_service


def has_landlock() -> bool:
    try:
        return sandbox.landlock_version() > 0
    except OSError:
        return False


needs_landlock = pytest.mark.skipif(
    not has_landlock() and "CI" not in os.environ, reason="this kernel has no Landlock"
)

TRY = """
import json, os, sys, tempfile, threading
from pathlib import Path
from serving.process.sandbox import confine

given, run_directory, outside = map(Path, sys.argv[1:])
confine([given, given / "missing"], run_directory)
memory = os.memfd_create("metrics")
attempts = {
    "given": lambda: (given / "file").read_bytes(),
    "write to given": lambda: (given / "file").write_bytes(b""),
    "make beside given": lambda: (given / "new").mkdir(),
    "read the run directory": lambda: (run_directory / "file").read_bytes(),
    "write to the run directory": lambda: (run_directory / "new").write_bytes(b""),
    "report": lambda: (run_directory / "workers" / "new").write_bytes(b""),
    "rename": lambda: (run_directory / "workers" / "new").rename(run_directory / "tmp" / "new"),
    "rename outwards": lambda: (run_directory / "tmp" / "new").rename(given / "new"),
    "own code": lambda: Path("service.py").read_bytes(),
    "hidden in the checkout": lambda: Path(".gitignore").read_bytes(),
    "list the checkout": lambda: os.listdir("."),
    "temporary": lambda: Path(tempfile.mkdtemp(), "new").write_bytes(b""),
    "outside": lambda: (outside / "file").read_bytes(),
    "list outside": lambda: os.listdir(outside),
    "write outside": lambda: (outside / "new").write_bytes(b""),
    "truncate outside": lambda: os.truncate(outside / "file", 0),
    "delete outside": lambda: (outside / "file").unlink(),
    "password": lambda: Path("/etc/passwd").read_bytes(),
    "environment": lambda: Path("/proc/self/environ").read_bytes(),
    "environment of a thread": lambda: Path("/proc/thread-self/environ").read_bytes(),
    "environment of the parent": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "open files": lambda: os.listdir("/proc/self/fd"),
    "memory": lambda: open(f"/proc/self/fd/{memory}", "r+b").close(),
    "library": lambda: Path(json.__file__).read_bytes(),
    "import": lambda: __import__("sklearn.linear_model"),
    "certificates": lambda: __import__("ssl").create_default_context(),
    "nothing": lambda: Path("/dev/null").write_bytes(b""),
    "semaphore": lambda: __import__("multiprocessing").Semaphore(1),
}
found = {}


def attempt():
    for name, what in attempts.items():
        try:
            what()
            found[name] = True
        except PermissionError:
            found[name] = False


thread = threading.Thread(target=attempt)
thread.start()
thread.join()
print(json.dumps(found))
"""


@needs_landlock
def test_what_is_given_is_read_the_run_directory_is_written_and_the_rest_is_out_of_reach(tmp_path: Path):
    folders = [tmp_path / name for name in ("given", "run", "outside")]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_bytes(b"secret")
    for name in sandbox.WRITABLE:
        (tmp_path / "run" / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", TRY, *map(str, folders)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert {name for name, is_allowed in found.items() if is_allowed} == {
        *(
            "given",
            "read the run directory",
            "report",
            "rename",
            "temporary",
            "open files",
            "memory",
            "library",
        ),
        *("own code", "list the checkout", "import", "certificates", "nothing", "semaphore"),
    }
    assert (tmp_path / "outside" / "file").read_bytes() == b"secret"


def test_a_system_without_landlock_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "_CREATE_RULESET", 10_000)
    with pytest.raises(OSError, match="not implemented"):
        sandbox.confine([], tmp_path)


def add_from_file(rows: npt.NDArray[Any], file: str) -> npt.NDArray[Any]:
    """Code of a user's own that reads a file each time."""
    return rows + float(Path(file).read_text())


@needs_landlock
def test_a_worker_reads_the_files_of_the_setting_and_no_others(tmp_path: Path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2))
    models = {}

    def log(name: str) -> Any:
        folder = tmp_path / str(len(models))
        folder.mkdir()
        (folder / "offset").write_text("0.5")
        reads = FunctionTransformer(add_from_file, kw_args={"file": str(folder / "offset")})
        model = models[str(len(models) + 1)] = make_pipeline(reads, LinearRegression()).fit(X, X[:, 0])
        return mlflow.sklearn.log_model(
            model,
            name=name,
            registered_model_name=name,
            serialization_format="skops",
            skops_trusted_types=[f"{__name__}.add_from_file"],
            signature=infer_signature(X),
            input_example=X[:5],
            **REQUIREMENTS,
        )

    uri = fill_registry(tmp_path / "registry", {"reader": log})
    with (
        running_service(
            tmp_path,
            MLFLOW_TRACKING_URI=uri,
            SERVING_MODEL_NAME="reader",
            SERVING_ALLOW_PICKLE="",
            SERVING_TRUSTED_TYPES=f"{__name__}.add_from_file",
            SERVING_READABLE_PATHS=f"{tmp_path / '0'},/missing",
            MLFLOW_TRACKING_PASSWORD="swordfish",
        ) as service,
        tracking(uri),
    ):
        service.wait_ready()
        (worker,) = child_processes(service.process.pid, WORKER)
        statuses = [file.read_text() for file in Path(f"/proc/{worker}/task").glob("*/status")]
        assert len(statuses) > 1
        assert all("\nNoNewPrivs:\t1\n" in status for status in statuses), "a thread is not confined"
        variables = Path(f"/proc/{worker}/environ").read_bytes()
        assert b"SERVING_MODEL_NAME" in variables
        assert b"swordfish" not in variables
        directory = run_directory(service.process.pid)
        assert directory is not None
        assert not (directory / "control").exists(), "the process manager can be reached"
        answer = service.predict(X[:3].tolist())
        np.testing.assert_allclose(
            [one["value"] for one in answer["predictions"]], models["1"].predict(X[:3]), rtol=1e-12
        )
        register("reader", log)

        def refusals() -> Any:
            return service.http.get("/v1/models").json()["refused"]

        (refused,) = wait_until(refusals, 60, "the second version is refused")
        assert "SERVING_READABLE_PATHS" in refused["reason"]
        assert service.predict(X[:1].tolist())["model"]["version"] == "1"
    assert "/missing does not exist" in service.log
    assert "Landlock" not in service.log
    assert "are not in it" not in service.log
