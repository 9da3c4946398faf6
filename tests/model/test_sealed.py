"""A sealed Bento: built with the model in it, served without a registry."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from scripts.build_image import bentofile
from serving.model.prepared import Manifest, Prepared
from serving.model.sealed import find_sealed
from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.settings import Settings
from tests.support.environment import ROOT, clean_environment, tracking
from tests.support.processes import SYNC, child_processes
from tests.support.promotions import NAME, ROWS, Registry, signed
from tests.support.services import running_service


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.01)


@pytest.fixture(scope="module")
def prepared(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Version 2, in a store of its own."""
    with pytest.MonkeyPatch.context() as patch, tracking(registry.uri):
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("store")))
        settings = Settings(MLFLOW_TRACKING_URI=registry.uri, model_name=NAME, model_version=2)
        return prepare(resolve(settings).champion, settings)


@pytest.fixture(scope="module")
def bento(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Bento with the model, as `bentoml containerize` copies it into an image."""
    home = prepared.folder.parents[2]
    checkout = tmp_path_factory.mktemp("checkout")
    for part in ("service.py", "preprocessing.py", "serving", "requirements", "container", "README.md"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, checkout / part)
    for name in ("service.py", "preprocessing.py", "serving/__init__.py", "container/.env"):
        stray = checkout / "elsewhere" / name
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_text("SECRET = 1")
    (checkout / ".env").write_text("SECRET=1")
    (checkout / "bentofile.yaml").write_text(yaml.safe_dump(bentofile(prepared)))
    subprocess.run(
        [sys.executable, "-m", "bentoml", "build"],
        cwd=checkout,
        env=clean_environment() | {"BENTOML_HOME": str(home)},
        check=True,
        capture_output=True,
    )
    (folder,) = [path.parent for path in (home / "bentos").rglob("bento.yaml")]
    sealed = tmp_path_factory.mktemp("image") / "bento"
    shutil.copytree(folder, sealed)
    shutil.copytree(home / "models", sealed / "models")
    shutil.rmtree(home)
    return sealed


def test_it_serves_its_model_without_a_registry(bento: Path, registry: Registry, tmp_path: Path) -> None:
    with running_service(
        tmp_path,
        bento,
        MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/nowhere.db",
        SERVING_MODEL_NAME="another",
        SERVING_WEBHOOK_SECRET="hunter2",
    ) as service:
        service.wait_ready()
        answer = service.predict(ROWS)
        assert answer["model"] == {"name": NAME, "version": "2"}
        got = [list(one["probabilities"].values()) for one in answer["predictions"]]
        np.testing.assert_allclose(got, registry.own_answers("2"), rtol=0, atol=1e-9)
        described = service.http.get("/v1/models").json()
        assert (described["stale"], described["models"][0]["runtime"]) == (None, "compiled")
        assert child_processes(service.process.pid, SYNC) == []
        refused = service.http.post("/v1/sync", content=b"{}", headers=signed("hunter2", b"{}"))
        assert refused.status_code == 403
        assert "inside this service" in refused.json()["error"]["message"]


def test_a_model_with_code_needs_the_setting_here_too(bento: Path, tmp_path: Path) -> None:
    """The image may have been built where it is allowed."""
    other = shutil.copytree(bento, tmp_path / "bento")
    (file,) = (other / "models").rglob("manifest.json")
    manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    changed = msgspec.structs.replace(manifest, writers_code="is a pickle; log it with skops")
    file.write_bytes(msgspec.json.encode(changed))
    nowhere = f"sqlite:///{tmp_path}/nowhere.db"
    with running_service(
        tmp_path, other, MLFLOW_TRACKING_URI=nowhere, SERVING_ALLOW_PICKLE="false"
    ) as service:
        assert service.process.wait(60) != 0
        assert (
            "is refused: it is a pickle; log it with skops, or set SERVING_ALLOW_PICKLE=true" in service.log
        )


def test_the_bento_holds_what_is_served_and_nothing_else(bento: Path) -> None:
    files = {str(file.relative_to(bento / "src")) for file in (bento / "src").rglob("*") if file.is_file()}
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "serving").rglob("*.py")}
    code -= {str(file.relative_to(ROOT)) for file in (ROOT / "serving" / "client").iterdir()}
    assert files == code | {
        "service.py",
        "preprocessing.py",
        "bentofile.yaml",
        "serving/http/dashboard.html",
    } | {f"container/{file.name}" for file in (ROOT / "container").iterdir() if file.is_file()}


def test_a_checkout_is_not_sealed() -> None:
    assert find_sealed(ROOT) is None
