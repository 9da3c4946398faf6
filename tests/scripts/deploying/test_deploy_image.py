"""`scripts/deploy_image.py` and `with_service.sh`: the real `kubectl kustomize`, and a cluster that says what a test wants."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import deploy_image
from scripts.deploy_image import MANIFESTS, build, parse_image
from scripts.deploying import workloads
from tests.kubernetes.building import builders
from tests.support.environment import ROOT, clean_environment, wait_until

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()

DIGEST = "sha256:" + "a" * 64

KUBECTL = """#!/bin/sh
# Builds manifests as the real one does; of a cluster it only pretends: what it gets is in files named after it.
if [ "$1" = kustomize ]; then exec $BUILDER "$2"; fi
echo "$*" >> "$CALLS"
found=
for word in "$@"; do
  test "$found" != get || { name=$(echo "$word" | tr / -); break; }
  test "$word" != get || found=get
done
case " $* " in
  *" get "*) test ! -f "$CLUSTER/$name" || cat "$CLUSTER/$name"; exit "${GET_CODE:-0}" ;;
  *" --dry-run=server "*) test -z "$CHECK_ERROR" || { echo "$CHECK_ERROR" >&2; exit 1; } ;;
  *" apply "*)
    cat > "$CALLS.applied"
    test -z "$HANG" || exec sleep 60
    test -z "$APPLY_ERROR" || { echo "$APPLY_ERROR" >&2; exit 1; }
    test ! -d "$CLUSTER/next" || mv "$CLUSTER"/next/* "$CLUSTER" ;;
  *" rollout status "*) test -z "$STATUS_ERROR" || { echo "$STATUS_ERROR" >&2; exit 1; } ;;
  *" port-forward "*) test -n "$FORWARD" || exit 1; exec "$PYTHON" "$FORWARD" ;;
esac
"""

BEFORE = "registry.example/model-server:1.0.0"


def pods(image: str) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"image": image}]}}}


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
    (tmp_path / "cluster").mkdir()
    deployment = {"metadata": {"generation": 4}, "spec": pods(BEFORE)}
    (tmp_path / "cluster" / "deployment-model-server").write_text(json.dumps(deployment))
    return clean_environment() | {
        "PATH": path,
        "BUILDER": f"{shutil.which(program)} {verb}",
        "CALLS": str(tmp_path / "calls"),
        "CLUSTER": str(tmp_path / "cluster"),
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
        "before": BEFORE,
        "done": True,
        "ready": True,
        "why": "its pods are ready",
    }
    assert images(Path(cluster["CALLS"] + ".applied").read_text()) == [f"registry.example/other@{DIGEST}"]
    verbs = [call.removeprefix(f"--namespace {namespace} ").split()[0] for call in calls(cluster)]
    assert verbs == ["get", "apply", "apply", "rollout"]
    assert "--dry-run=server" in calls(cluster)[1]
    assert {file: file.read_bytes() for file in MANIFESTS.rglob("*.yaml")} == before


@pytest.fixture
def own_manifests(cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of k8s/ that a test may change, and this process in the environment of the cluster."""
    for name in ("PATH", "BUILDER", "CLUSTER", "CALLS"):
        monkeypatch.setenv(name, cluster[name])
    shutil.copytree(MANIFESTS, tmp_path / "k8s")
    monkeypatch.setattr(deploy_image, "MANIFESTS", tmp_path / "k8s")
    return tmp_path / "k8s"


def change_production(manifests: Path, **change: Any) -> None:
    file = manifests / "overlays" / "production" / "kustomization.yaml"
    # The order of its fields stays, as kustomize writes them.
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change, sort_keys=False))


def images_of(*names: str) -> list[dict[str, str]]:
    """What an overlay has under `images`."""
    name, _, tag = BEFORE.rpartition(":")
    return [{"name": one, "newName": name, "newTag": tag} for one in names]


BOTH = images_of("model-server", "model-server-canary")


def test_a_component_may_have_an_image_of_its_own(own_manifests: Path):
    change_production(own_manifests, components=["../../components/seldon-canary"], images=BOTH)
    documents = build(own_manifests / "overlays" / "production", "model-server-canary")
    deploy_image.replace_placeholder(documents, "registry.example/model-server:7")
    (seldon,) = [one for one in documents if one["kind"] == "SeldonDeployment"]
    found = [
        one["componentSpecs"][0]["spec"]["containers"][0]["image"] for one in seldon["spec"]["predictors"]
    ]
    assert found == [BEFORE, "registry.example/model-server:7"]


def in_cluster(cluster: dict[str, str], name: str, image: str) -> None:
    """Gives the cluster a Deployment."""
    container = {"name": "model-server", "image": image}
    deployment = {
        "metadata": {"generation": 4, "uid": name},
        "spec": {
            "template": {"spec": {"containers": [container]}},
            "selector": {"matchLabels": {"is": name}},
        },
    }
    Path(cluster["CLUSTER"], f"deployment-{name}").write_text(json.dumps(deployment))


@pytest.mark.parametrize(
    ("told", "other"), [("model-server-canary", "model-server"), ("model-server", "model-server-canary")]
)
def test_another_deployment_keeps_the_image_that_it_has_in_the_cluster(
    own_manifests: Path, cluster: dict[str, str], run: "Run", told: str, other: str
):
    components = ["../../components/monitoring", "../../components/canary-pods"]
    change_production(own_manifests, components=components, images=BOTH)
    in_cluster(cluster, told, "registry.example/model-server:1.1.0")
    in_cluster(cluster, other, "registry.example/model-server:1.5.0")
    code, out, _ = run("production", "--image", NEW, "--name", told)
    assert code == 0
    assert out.splitlines() == [
        f"model-server: deployment/{other} keeps registry.example/model-server:1.5.0",
        f"model-server: {NEW} is applied; before it was registry.example/model-server:1.1.0",
        "model-server: its pods are ready",
    ]
    applied = yaml.safe_load_all(Path(cluster["CALLS"] + ".applied").read_text())
    found = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in applied
        if one["kind"] == "Deployment"
    }
    assert found == {told: NEW, other: "registry.example/model-server:1.5.0"}
    assert f"rollout status deployment/{told} " in calls(cluster)[-1]


def test_the_image_before_is_one_that_answered(cluster: dict[str, str], run: "Run", own_manifests: Path):
    in_cluster(cluster, "model-server", "registry.example/model-server:9.9.9")
    file = Path(cluster["CLUSTER"], "deployment-model-server")
    stuck = {"replicas": 4, "updatedReplicas": 1, "unavailableReplicas": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": stuck}))

    def replica_set(image: str, n_available: int, owner: str = "model-server") -> dict[str, Any]:
        return {
            "metadata": {"ownerReferences": [{"uid": owner}]},
            "spec": pods(image),
            "status": {"availableReplicas": n_available},
        }

    items = [replica_set(BEFORE, 3), replica_set("m:9.9.9", 0), replica_set("m:0", 5, owner="another")]
    Path(cluster["CLUSTER"], "replicasets").write_text(json.dumps({"items": items}))
    assert json.loads(run("production", "--image", NEW, "--no-wait", "--json")[1])["before"] == BEFORE


def pod(*, ready: str = "False", scheduled: str = "True", **state: Any) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": ready},
        {
            "type": "PodScheduled",
            "status": scheduled,
            "message": "0/3 nodes are available: 3 Insufficient cpu.",
        },
    ]
    return {"status": {"conditions": conditions, "containerStatuses": [{"state": state}]}}


def test_what_keeps_the_pods_is_said_while_they_are_waited_for(
    cluster: dict[str, str], run: "Run", own_manifests: Path, monkeypatch: pytest.MonkeyPatch
):
    in_cluster(cluster, "model-server", BEFORE)
    monkeypatch.setattr(workloads, "LOOK_SECONDS", 0.2)
    monkeypatch.setenv("STATUS_ERROR", "error: timed out waiting for the condition")
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    items = [
        pod(waiting=waiting),
        pod(waiting=waiting),
        pod(scheduled="False"),
        pod(running={}),
        pod(ready="True"),
    ]
    Path(cluster["CLUSTER"], "pods").write_text(json.dumps({"items": items}))
    code, out, _ = run("production", "--image", NEW, "--timeout-seconds", "1")
    keeps = (
        "2 pods: ImagePullBackOff: not found; 1 pod: not scheduled: 0/3 nodes are available: 3 Insufficient cpu.; "
        "1 pod: running, but not ready; the reason is in its log and at /readyz"
    )
    assert code == 1
    assert out.splitlines()[1:] == [
        f"model-server: {keeps}",
        f"model-server: error: timed out waiting for the condition; {keeps}",
    ]


def test_an_image_is_written_for_git_and_nothing_else_changes(
    own_manifests: Path, run: "Run", cluster: dict[str, str]
):
    before = {file: file.read_text() for file in own_manifests.rglob("*.yaml")}
    assert run("production", "--image", f"registry.example/other@{DIGEST}", "--write")[:2] == (
        0,
        f"registry.example/other@{DIGEST} is in k8s/overlays/production/kustomization.yaml\n",
    )
    assert calls(cluster) == []
    changed = {file for file in before if file.read_text() != before[file]}
    assert changed == {own_manifests / "overlays" / "production" / "kustomization.yaml"}
    (file,) = changed
    lines = file.read_text().splitlines(), before[file].splitlines()
    assert [line for line in lines[1] if line not in lines[0]] == [
        "    newName: registry.example/model-server",
        '    newTag: "1.0.0"',
    ]
    built = build(file.parent, "model-server")
    assert run("production", "--image", NEW, "--write")[0] == 0
    assert yaml.safe_load(file.read_text())["images"] == [
        {"name": "model-server", "newName": "registry.example/model-server", "newTag": "2.0.0"}
    ]
    assert build(file.parent, "model-server") == built


def test_an_overlay_may_lie_in_another_repository(
    own_manifests: Path, run: "Run", cluster: dict[str, str], tmp_path_factory: pytest.TempPathFactory
):
    """With a copy of k8s/ there, as docs/kubernetes.md has it."""
    platform = tmp_path_factory.mktemp("platform")
    (platform / "model-server").mkdir()
    shutil.copytree(MANIFESTS, platform / "vendor" / "k8s")
    (block,) = re.findall(r"^```yaml\n(apiVersion: kustomize.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    file = platform / "model-server" / "kustomization.yaml"
    file.write_text(re.sub(r"https://\S+//k8s/(\S+)\?ref=\S+", r"../vendor/k8s/\1", block))
    (copied,) = re.findall(r"^```yaml\n(resources:\n  - namespace.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert yaml.safe_load(copied).items() <= yaml.safe_load(file.read_text()).items()
    shutil.copy(own_manifests / "overlays" / "production" / "namespace.yaml", file.parent)
    before = {path: path.read_text() for path in platform.rglob("*.yaml")}

    code, out, error = run(str(file.parent), "--image", NEW, "--dry-run")
    assert (code, error) == (0, "")
    assert sorted(images(out)) == [BEFORE, NEW]
    assert run(str(file.parent), "--image", NEW, "--write")[1] == f"{NEW} is in {file}\n"
    assert {path for path in before if path.read_text() != before[path]} == {file}
    file.write_text(before[file].replace("- name: model-server-canary", "- name: canary"))
    code, _, error = run(str(file.parent), "--image", NEW)
    assert code == 2
    assert f"{file.parent}: deployment/model-server-canary runs 'model-server-canary:overlay'" in error
    assert calls(cluster) == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            {"resources": ["https://127.0.0.1:1/team/model-server//k8s/base?ref=v1"]},
            "k8s/overlays/production cannot be built: accumulating resources: .*connection refused",
        ),
        (
            {"patches": [{"path": "hpa.yaml"}]},
            "cannot be built: .* overlays/production/hpa.yaml: no such file",
        ),
        (
            {"components": ["../../components/monitorng"]},
            "production/kustomization.yaml includes ../../components/monitorng, which does not exist",
        ),
    ],
)
def test_manifests_that_cannot_be_built_say_why_in_one_line(
    own_manifests: Path, run: "Run", change: dict[str, Any], part: str
):
    change_production(own_manifests, **change)
    code, _, error = run("production", "--image", NEW)
    assert (code, error.count("\n")) == (2, 1)
    assert re.search(part, error)
    assert tempfile.gettempdir() not in error.replace(str(own_manifests), "")


def test_an_image_that_nothing_runs_is_not_written(own_manifests: Path, run: "Run"):
    change_production(own_manifests, images=[{"name": "other", "newTag": "1"}])

    code, _, error = run("production", "--image", NEW, "--name", "other", "--write")

    assert code == 2
    assert "nothing in k8s/overlays/production runs the image 'other'" in error


def test_pods_without_an_image_are_not_applied(own_manifests: Path, run: "Run"):
    images = images_of("model-server", "model-server-canery")
    change_production(own_manifests, components=["../../components/canary-pods"], images=images)

    code, _, error = run("production", "--image", NEW)

    assert code == 2
    assert "deployment/model-server-canary runs 'model-server-canary:overlay'" in error


NEW = "registry.example/model-server:2.0.0"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = deploy_image.main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_namespace_need_not_be_among_the_manifests(own_manifests: Path, run: Run):
    change_production(own_manifests, resources=["../../base"], namespace="elsewhere")
    assert run("production", "--image", NEW)[:2] == (
        0,
        f"elsewhere: {NEW} is applied; before it was {BEFORE}\nelsewhere: its pods are ready\n",
    )
    change_production(own_manifests, namespace=None)
    assert "names no `namespace`" in run("production", "--image", NEW)[2]


def test_a_namespace_that_comes_with_the_manifests_cannot_be_checked_before(
    deploy: Deploy,
):
    missing = 'Error from server (NotFound): error when creating "STDIN": namespaces "model-server" not found'
    assert deploy("production", "--image", NEW, CHECK_ERROR=missing).returncode == 0
    other = f"{missing}\nerror: no matches for kind"
    assert deploy("production", "--image", NEW, CHECK_ERROR=other).returncode == 2


class Argo:
    """A Rollout in the cluster, as its controller writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def writes(self, folder: str = ".", **status: Any) -> None:
        """Says how the Rollout is; what is in `next` counts once something is applied."""
        steps = [{"setWeight": 5}, {"pause": {}}, {"setWeight": 10}, {"pause": {"duration": "5m"}}]
        known = {"stableRS": "old", "currentPodHash": "old", "observedGeneration": "3"}
        known |= {"workloadObservedGeneration": "4", "phase": "Healthy"}
        document = {
            "metadata": {"name": "model-server", "namespace": "model-server", "generation": 3},
            "spec": {"strategy": {"canary": {"steps": steps}}},
            "status": known | status,
        }
        (self.folder / folder).mkdir(exist_ok=True)
        (self.folder / folder / "rollouts.argoproj.io-model-server").write_text(json.dumps(document))

    def asks_for(self, image: str) -> None:
        """Gives the Deployment an image, which need not be the stable one."""
        deployment = {"metadata": {"generation": 4}, "spec": pods(image)}
        (self.folder / "deployment-model-server").write_text(json.dumps(deployment))


@pytest.fixture
def argo(cluster: dict[str, str], own_manifests: Path, monkeypatch: pytest.MonkeyPatch) -> Argo:
    """Production with the component `canary-steps`."""
    change_production(own_manifests, components=["../../components/canary-steps"])
    monkeypatch.setattr(workloads, "PAUSE_SECONDS", 0.01)
    argo = Argo(Path(cluster["CLUSTER"]))
    argo.writes()
    (argo.folder / "replicasets").write_text(json.dumps({"items": [{"spec": pods(BEFORE)}]}))
    return argo


NEW_PODS = {"currentPodHash": "new", "phase": "Paused", "currentStepIndex": 1}


@pytest.mark.parametrize(
    ("status", "code", "is_ready", "said"),
    [
        ({"currentPodHash": "new", "stableRS": "new"}, 0, True, "its pods are ready"),
        (
            NEW_PODS,
            0,
            False,
            "is paused at step 2 of 4 with the new image; next: .venv/bin/python scripts/canary.py rollout model-server --namespace model-server",
        ),
        (
            NEW_PODS | {"currentStepIndex": 3},
            0,
            False,
            "at step 4 of 4 with the new image; it continues by itself",
        ),
        (NEW_PODS | {"phase": "Degraded", "message": "too late"}, 1, False, "is degraded: too late"),
        (NEW_PODS | {"abort": True, "message": "by hand"}, 1, False, "was aborted: by hand"),
        (NEW_PODS | {"phase": "Progressing"}, 1, False, "is not ready within 0 s: Progressing"),
        ({"observedGeneration": "2"}, 1, False, "is not ready within 0 s: its state is unknown"),
        ({"workloadObservedGeneration": "3"}, 1, False, "is not ready within 0 s: its state is unknown"),
    ],
)
def test_where_a_rollout_has_the_pods_it_is_waited_for(
    argo: Argo, run: Run, status: dict[str, Any], code: int, is_ready: bool, said: str
):
    """The Deployment has none then, and is ready at once."""
    argo.writes("next", **status)
    told = run("production", "--image", NEW, "--timeout-seconds", "0", "--json")
    facts = json.loads(told[1])
    assert (told[0], facts["done"], facts["ready"]) == (code, True, is_ready)
    assert said in facts["why"]


def test_the_image_before_is_the_stable_one_whatever_the_deployment_asks_for(argo: Argo, run: Run):
    argo.asks_for(NEW)
    assert json.loads(run("production", "--image", NEW, "--no-wait", "--json")[1])["before"] == BEFORE


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (NEW_PODS, "is in the middle of a canary"),
        (NEW_PODS | {"abort": True, "phase": "Degraded"}, "has an aborted canary"),
        ({"workloadObservedGeneration": "3"}, "has not observed its last change yet"),
    ],
)
def test_in_the_middle_of_a_canary_only_the_stable_image_is_applied(
    argo: Argo, run: Run, status: dict[str, Any], part: str
):
    argo.asks_for(NEW)
    argo.writes(**status)
    code, out, err = run("production", "--image", "registry.example/model-server:3.0.0")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err
    assert f"only its stable image may be applied, {BEFORE}" in err
    argo.writes("next")
    assert run("production", "--image", BEFORE)[0] == 0


def test_the_first_rollout_has_nothing_to_go_back_to_but_the_deployments_image(argo: Argo, run: Run):
    (argo.folder / "rollouts.argoproj.io-model-server").unlink()
    assert json.loads(run("production", "--image", NEW, "--no-wait", "--json")[1])["before"] == BEFORE
    (argo.folder / "deployment-model-server").unlink()
    assert json.loads(run("production", "--image", NEW, "--no-wait", "--json")[1])["before"] is None


def test_the_image_before_is_told_where_applying_fails_half_way(deploy: Deploy):
    done = deploy("production", "--image", NEW, "--json", APPLY_ERROR="forbidden")
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["before"], facts["done"]) == (1, BEFORE, False)


def test_what_goes_on_step_by_step_is_not_waited_for(deploy: Deploy, cluster: dict[str, str]):
    done = deploy("production", "--image", "registry.example/m:2", "--no-wait", "--context", "here")
    assert done.returncode == 0
    assert "registry.example/m:2 is applied; before it was registry.example/model-server:1.0.0" in done.stdout
    assert [call.split()[:2] for call in calls(cluster)] == [["--context", "here"]] * 3


def test_a_dry_run_prints_and_asks_no_cluster(deploy: Deploy, cluster: dict[str, str]):
    done = deploy("staging", "--image", "registry.example/m:2", "--dry-run")
    assert (done.returncode, images(done.stdout)) == (0, ["registry.example/m:2"])
    assert calls(cluster) == []


def test_a_dry_run_says_whose_image_only_the_cluster_knows(own_manifests: Path, run: Run):
    change_production(own_manifests, components=["../../components/canary-pods"], images=BOTH)
    out = run("production", "--image", NEW, "--dry-run")[1]
    comment, _, manifests = out.partition("\n")
    assert comment == (
        "# Without the cluster: deployment/model-server-canary keeps the image that it has there, if any."
    )
    assert sorted(images(manifests)) == sorted(images(out)) == [BEFORE, NEW]
    assert json.loads(run("production", "--image", NEW, "--dry-run", "--json")[1])["keep"] == [
        "deployment/model-server-canary"
    ]


def test_pods_that_are_not_ready_in_time_fail(deploy: Deploy):
    done = deploy(
        *("staging", "--image", "registry.example/m:2", "--timeout-seconds", "1"),
        STATUS_ERROR="error: timed out waiting",
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1,
        "model-server-staging: error: timed out waiting",
    )


def test_manifests_that_the_cluster_does_not_take_fail(deploy: Deploy):
    done = deploy("staging", "--image", "registry.example/m:2", APPLY_ERROR="forbidden")
    assert (done.returncode, done.stdout) == (1, "model-server-staging: kubectl apply failed: forbidden\n")


def test_the_image_before_is_told_where_applying_is_broken_off(cluster: dict[str, str]):
    process = subprocess.Popen(
        [sys.executable, "scripts/deploy_image.py", "production", "--image", NEW, "--json"],
        cwd=ROOT,
        env=cluster | {"HANG": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(Path(cluster["CALLS"] + ".applied").exists, 30, "it is being applied")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    facts = json.loads(out)
    assert (process.returncode, facts["before"], facts["done"]) == (143, BEFORE, False)


@pytest.mark.parametrize(
    ("arguments", "environment", "part"),
    [
        (["staging", "--image", "m"], {}, "not an image with a tag or a digest"),
        (["staging", "--image", "m:1@sha256:12"], {}, "not an image"),
        (["staging", "--image", "registry.example/M:1"], {}, "image names must be lower case"),
        (
            ["elsewhere", "--image", "m:1"],
            {},
            "'elsewhere' is neither in k8s/overlays (production, staging) nor a folder with a kustomization.yaml",
        ),
        (["staging", "--image", "m:1", "--name", "other"], {}, "have no image named 'other'"),
        (
            ["staging", "--image", "m:1", "--name", "model-server-canary", "--write"],
            {},
            "k8s/overlays/staging and what it includes have no image named 'model-server-canary'",
        ),
        (["staging", "--image", "m:1"], {"GET_CODE": "1"}, "the cluster cannot be queried"),
        (
            ["staging", "--image", "m:1"],
            {"CHECK_ERROR": "error: no matches for kind"},
            "the cluster rejects it: error",
        ),
        (["staging", "--image", "m:1", "--require", "Rollout"], {}, "k8s/overlays/staging has no Rollout"),
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
    assert not Path(cluster["CALLS"] + ".applied").exists()


FORWARD = """import os, sys, http.server
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(f"Forwarding from 127.0.0.1:{server.server_port} -> 3000", flush=True)
print(f"Forwarding from [::1]:{server.server_port} -> 3000", flush=True)
while True:
    server.handle_request()
    if "ENDS" in os.environ: break
"""


@pytest.fixture
def forward(tmp_path: Path) -> str:
    """What answers as the service does."""
    file = tmp_path / "forward.py"
    file.write_text(FORWARD)
    return str(file)


def with_service(cluster: dict[str, str], *command: str, **environment: str) -> Done:
    return subprocess.run(
        ["scripts/with_service.sh", *command],
        cwd=ROOT,
        env=cluster | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1] + '/docs/').status); "


def test_a_command_runs_while_the_service_is_reached_at_a_port_that_is_free(
    cluster: dict[str, str], forward: str
):
    command = (sys.executable, "-c", f"{ASK} raise SystemExit(7)", "{}")
    done = with_service(cluster, "somewhere", *command, FORWARD=forward)
    assert (done.returncode, done.stdout) == (7, "200\n"), done.stderr
    assert calls(cluster) == ["port-forward --namespace somewhere service/model-server :http"]
    gone = subprocess.run(["pgrep", "-f", forward], capture_output=True, check=False)
    assert gone.stdout == b""


def test_a_way_that_ends_before_the_command_is_no_success(cluster: dict[str, str], forward: str):
    command = (sys.executable, "-c", f"{ASK} import time; time.sleep(1)", "{}")
    assert with_service(cluster, "somewhere", *command, FORWARD=forward).returncode == 0
    done = with_service(cluster, "somewhere", *command, FORWARD=forward, ENDS="1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "the connection to the service of somewhere was lost meanwhile"
    )


def test_a_service_that_cannot_be_reached_is_told(cluster: dict[str, str]):
    done = with_service(cluster, "somewhere", "true")
    assert (done.returncode, done.stderr) == (
        2,
        "with_service.sh: the service of somewhere cannot be reached\n",
    )


@pytest.mark.parametrize("arguments", [[], ["somewhere"]])
def test_without_a_command_one_line_says_so(cluster: dict[str, str], arguments: list[str]):
    done = with_service(cluster, *arguments)
    assert (done.returncode, done.stderr) == (2, "with_service.sh: expected a namespace and a command\n")
    assert calls(cluster) == []
