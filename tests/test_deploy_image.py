"""`scripts/deploy_image.py` and `with_service.sh`: the real `kubectl kustomize`, and a cluster that says what a test wants."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from scripts.deploy_image import MANIFESTS, build, parse_image
from tests.conftest import ROOT, clean_environment, free_port
from tests.kubernetes.building import builders

DIGEST = "sha256:" + "a" * 64

KUBECTL = """#!/bin/sh
# Builds manifests as the real one does; of a cluster it only pretends.
if [ "$1" = kustomize ]; then exec $BUILDER "$2"; fi
echo "$*" >> "$CALLS"
case " $* " in
  *" get "*) printf %s "$BEFORE"; exit "${GET_CODE:-0}" ;;
  *" apply "*) cat > "$CALLS.applied"; test -z "$APPLY_ERROR" || { echo "$APPLY_ERROR" >&2; exit 1; } ;;
  *" rollout status "*) test -z "$STATUS_ERROR" || { echo "$STATUS_ERROR" >&2; exit 1; } ;;
  *" port-forward "*) test -n "$FORWARD" || exit 1; exec "$PYTHON" "$FORWARD" "$PORT" ;;
esac
"""

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a cluster."""
    if not builders():
        missing = "needs kubectl or kustomize"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    program, verb = next(iter(builders().values()))
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kubectl").write_text(KUBECTL)
    (folder / "kubectl").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return clean_environment() | {
        "PATH": path,
        "BUILDER": f"{shutil.which(program)} {verb}",
        "CALLS": str(tmp_path / "calls"),
        "BEFORE": "registry.example/model-server:1.0.0",
        "PYTHON": sys.executable,
    }


Deploy = Callable[..., Done]


@pytest.fixture
def deploy(cluster: dict[str, str]) -> Deploy:
    def call(*arguments: str, **environment: str) -> Done:
        return subprocess.run(
            [sys.executable, "scripts/deploy_image.py", *arguments],
            cwd=ROOT,
            env=cluster | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return call


def calls(cluster: dict[str, str]) -> list[str]:
    file = Path(cluster["CALLS"])
    return file.read_text().splitlines() if file.exists() else []


def images(manifests: str) -> list[str]:
    documents = [one for one in yaml.safe_load_all(manifests) if one and one["kind"] == "Deployment"]
    return [one["spec"]["template"]["spec"]["containers"][0]["image"] for one in documents]


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("registry.example/m:1.2", {"newName": "registry.example/m", "newTag": "1.2"}),
        ("registry.example:5000/team/m:1", {"newName": "registry.example:5000/team/m", "newTag": "1"}),
        ("m:1", {"newName": "m", "newTag": "1"}),
        (f"registry.example/m@{DIGEST}", {"newName": "registry.example/m", "digest": DIGEST}),
        (f"registry.example/m:1.2@{DIGEST}", {"newName": "registry.example/m", "digest": DIGEST}),
    ],
)
def test_an_image_is_read_as_registries_write_it(text: str, image: dict[str, str]):
    assert parse_image(text) == image


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_an_overlay_is_applied_with_the_image_and_waited_for(
    deploy: Deploy, cluster: dict[str, str], overlay: str
):
    before = {file: file.read_bytes() for file in MANIFESTS.rglob("*.yaml")}
    done = deploy(overlay, "--image", f"registry.example/other@{DIGEST}", "--json")
    assert done.returncode == 0, done.stderr
    namespace = "model-server" if overlay == "production" else "model-server-staging"
    assert json.loads(done.stdout) == {
        "overlay": overlay,
        "namespace": namespace,
        "image": f"registry.example/other@{DIGEST}",
        "before": cluster["BEFORE"],
        "done": True,
    }
    assert images(Path(cluster["CALLS"] + ".applied").read_text()) == [f"registry.example/other@{DIGEST}"]
    verbs = [call.removeprefix(f"--namespace {namespace} ").split()[0] for call in calls(cluster)]
    assert verbs == ["get", "apply", "rollout"]
    assert {file: file.read_bytes() for file in MANIFESTS.rglob("*.yaml")} == before


def test_a_component_may_have_an_image_of_its_own(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("PATH", "BUILDER"):
        monkeypatch.setenv(name, cluster[name])
    shutil.copytree(MANIFESTS, tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / "production" / "kustomization.yaml"
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(content | {"components": ["../../components/seldon-canary"]}))
    monkeypatch.setattr("scripts.deploy_image.MANIFESTS", tmp_path / "k8s")
    built = build("production", "model-server-canary", parse_image("registry.example/model-server:7"))
    (seldon,) = [one for one in yaml.safe_load_all(built) if one["kind"] == "SeldonDeployment"]
    found = [
        one["componentSpecs"][0]["spec"]["containers"][0]["image"] for one in seldon["spec"]["predictors"]
    ]
    assert found == ["registry.example/model-server:1.0.0", "registry.example/model-server:7"]


def test_what_goes_on_step_by_step_is_not_waited_for(deploy: Deploy, cluster: dict[str, str]):
    done = deploy("production", "--image", "registry.example/m:2", "--no-wait", "--context", "here")
    assert done.returncode == 0
    assert "registry.example/m:2 is applied; before it was registry.example/model-server:1.0.0" in done.stdout
    assert [call.split()[:2] for call in calls(cluster)] == [["--context", "here"]] * 2


def test_a_dry_run_prints_and_asks_no_cluster(deploy: Deploy, cluster: dict[str, str]):
    done = deploy("staging", "--image", "registry.example/m:2", "--dry-run")
    assert (done.returncode, images(done.stdout)) == (0, ["registry.example/m:2"])
    assert calls(cluster) == []


def test_pods_that_are_not_ready_in_time_fail(deploy: Deploy):
    done = deploy("staging", "--image", "registry.example/m:2", STATUS_ERROR="error: timed out waiting")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1,
        "model-server-staging: error: timed out waiting",
    )


def test_manifests_that_the_cluster_does_not_take_fail(deploy: Deploy):
    done = deploy("staging", "--image", "registry.example/m:2", APPLY_ERROR="forbidden")
    assert (done.returncode, done.stdout) == (1, "model-server-staging: kubectl apply failed: forbidden\n")


@pytest.mark.parametrize(
    ("arguments", "environment", "part"),
    [
        (["staging", "--image", "m"], {}, "not an image with a tag or a digest"),
        (["staging", "--image", "m:1@sha256:12"], {}, "not an image"),
        (["elsewhere", "--image", "m:1"], {}, "invalid choice: 'elsewhere'"),
        (["staging", "--image", "m:1", "--name", "other"], {}, "no kustomization.yaml has an image"),
        (["staging", "--image", "m:1", "--name", "model-server-canary"], {}, "nothing in it that runs"),
        (["staging", "--image", "m:1"], {"GET_CODE": "1"}, "the cluster cannot be asked"),
        (["staging", "--image", "m:1"], {"PATH": "/nowhere"}, "kubectl is not installed"),
    ],
)
def test_where_nothing_can_be_done_one_line_says_why(
    deploy: Deploy, cluster: dict[str, str], arguments: list[str], environment: dict[str, str], part: str
):
    done = deploy(*arguments, **environment)
    assert done.returncode == 2
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(" apply " in call for call in calls(cluster))


FORWARD = """import sys, http.server
http.server.test(http.server.SimpleHTTPRequestHandler, http.server.HTTPServer, port=int(sys.argv[1]), bind="localhost")
"""


def with_service(cluster: dict[str, str], *command: str, **environment: str) -> Done:
    return subprocess.run(
        ["scripts/with_service.sh", *command],
        cwd=ROOT,
        env=cluster | {"PORT": str(free_port())} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_command_runs_while_the_service_is_reached(cluster: dict[str, str], tmp_path: Path):
    (tmp_path / "forward.py").write_text(FORWARD)
    ask = "import os, urllib.request as r; print(r.urlopen('http://localhost:' + os.environ['PORT']).status); raise SystemExit(7)"
    done = with_service(cluster, "somewhere", sys.executable, "-c", ask, FORWARD=str(tmp_path / "forward.py"))
    assert (done.returncode, done.stdout) == (7, "200\n"), done.stderr
    (call,) = calls(cluster)
    assert call.startswith("port-forward --namespace somewhere service/model-server ")
    gone = subprocess.run(["pgrep", "-f", str(tmp_path / "forward.py")], capture_output=True, check=False)
    assert gone.stdout == b""


def test_a_service_that_cannot_be_reached_is_told(cluster: dict[str, str]):
    done = with_service(cluster, "somewhere", "true")
    assert (done.returncode, done.stderr) == (
        2,
        "with_service.sh: the service of somewhere cannot be reached\n",
    )
