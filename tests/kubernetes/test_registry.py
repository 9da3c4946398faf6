"""The example of a registry: a tracking server that the model servers of both overlays reach, and that really runs."""

import contextlib
import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest

from tests.kubernetes.building import OVERLAYS, Document, all_pods, build, of_kind, policy_selects
from tests.support.environment import ROOT, clean_environment, free_port, wait_until
from tests.support.fake_service import FakeService
from tests.support.stores import Store, permissions_checked, s3

PASSWORD = "correct-horse-battery"

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()

DOCKERFILE = (ROOT / "container" / "registry.Dockerfile").read_text()


def pod(example: str = "registry") -> Document:
    ((_, spec),) = all_pods(build(example))
    return spec


def container(example: str = "registry") -> Document:
    (only,) = pod(example)["containers"]
    return dict(only)


def environment(example: str = "registry") -> dict[str, str]:
    """The container's variables; those that come out of a Secret are PASSWORD."""
    return {entry["name"]: entry.get("value", PASSWORD) for entry in container(example)["env"]}


def asked_as(overlay: str) -> str:
    """Host and port by which an overlay's pods call the registry."""
    (settings,) = of_kind(build(overlay), "ConfigMap")
    return urlsplit(settings["data"]["MLFLOW_TRACKING_URI"]).netloc


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_overlays_ask_it_under_a_name_that_it_takes_at_the_port_that_it_has(overlay):
    (service,) = of_kind(build("registry"), "Service")
    (port,) = service["spec"]["ports"]
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    assert asked_as(overlay) == f"{name}.{namespace}:{port['port']}"
    assert asked_as(overlay) in environment()["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert [(port["targetPort"], f"--port={port['port']}")] == [
        (port["name"], argument) for argument in container()["args"] if argument.startswith("--port=")
    ]
    assert container()["ports"] == [{"name": port["name"], "containerPort": port["port"]}]


def test_only_the_overlays_pods_may_ask_it_and_it_asks_nobody():
    (policy,) = of_kind(build("registry"), "NetworkPolicy")
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    for overlay in OVERLAYS:
        for labels, _ in all_pods(build(overlay, "scripts canary-pods")):
            assert policy_selects(peer, labels)
    assert not policy_selects(peer, {"app.kubernetes.io/name": "somebody"})
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    namespaces = {of_kind(build(overlay), "Namespace")[0]["metadata"]["name"] for overlay in OVERLAYS}
    assert (expression["key"], expression["operator"]) == ("kubernetes.io/metadata.name", "In")
    assert set(expression["values"]) == namespaces
    assert not policy["spec"].get("egress")


def test_its_image_is_the_one_that_is_locked():
    locked = re.search(r"^mlflow==(\S+)", (ROOT / "requirements" / "registry.txt").read_text(), re.MULTILINE)
    image = f"registry.example/mlflow:{locked[1]}"
    assert container()["image"] == image
    told = DOCKERFILE + (ROOT / "docs" / "deploy.md").read_text()
    assert set(re.findall(r"registry\.example/mlflow:[\w.]+", told)) == {image}
    assert f"USER {pod()['securityContext']['runAsUser']}:" in DOCKERFILE


def test_one_pod_at_a_time_has_the_volume():
    (deployment,) = of_kind(build("registry"), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


@contextlib.contextmanager
def running(folder: Path, port: int, example: str = "registry") -> Iterator[str]:
    """Runs what the container runs, with its variables and no others; yields its URL."""
    container_, variables = container(example), environment(example)
    mounts = {one["mountPath"]: str(folder / one["name"]) for one in container_["volumeMounts"]}
    volumes = {str(folder / volume["name"]): volume for volume in pod(example)["volumes"]}
    assert set(mounts.values()) == set(volumes)

    def here(text: str) -> str:
        text = re.sub(rf"(?<![\w.])({'|'.join(mounts)})\b", lambda found: mounts[found[0]], text)
        return text.replace("--host=0.0.0.0", "--host=127.0.0.1").replace("--port=5000", f"--port={port}")

    files = {one["metadata"]["name"]: one["data"] for one in of_kind(build(example), "ConfigMap")}
    for path, volume in volumes.items():
        Path(path).mkdir()
        for name, content in files.get(volume.get("configMap", {}).get("name"), {}).items():
            Path(path, name).write_text(here(content))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [here(word) for word in (*container_["command"], *container_["args"])],
        env={"PATH": path} | {name: here(value) for name, value in variables.items()},
        cwd=mounts["/tmp"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, "it has ended"
        with contextlib.suppress(httpx.TransportError):
            # As the kubelet asks: by the pod's address.
            probes = {
                container_[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")
            }
            return all(
                httpx.get(url + one, headers={"Host": "10.244.1.7:5000"}).status_code == 200 for one in probes
            )
        return False

    try:
        wait_until(answers, 90, "the tracking server answers its probes")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_it_runs_answers_to_the_services_names_and_serves_artifacts(tmp_path: Path):
    def ask(method: str, path: str, host: str = "mlflow.mlflow.svc:5000", **more: Any) -> httpx.Response:
        return httpx.request(method, f"{url}/api/2.0/{path}", headers={"Host": host}, timeout=30, **more)

    with running(tmp_path, free_port()) as url:
        search = "mlflow/registered-models/search"
        for host in (
            *map(asked_as, OVERLAYS),
            "mlflow.mlflow.svc:5000",
            "mlflow.mlflow.svc.cluster.local:5000",
        ):
            assert ask("GET", search, host).status_code == 200, host
        # As `kubectl port-forward` has it, at whatever port.
        assert ask("GET", search, "127.0.0.1:15000").status_code == 200
        refused = ask("GET", search, "mlflow:5000")
        assert (refused.status_code, "Invalid Host header" in refused.text) == (403, True)
        page = (ROOT / "docs" / "troubleshooting.md").read_text()
        (called,) = re.findall(
            r"^\$ kubectl exec -n model-server deployment/model-server -- (.*)$", page, re.MULTILINE
        )
        program, *arguments = shlex.split(called.replace(f"http://{asked_as('production')}", url))
        assert program == "python"
        assert subprocess.check_output([sys.executable, *arguments], text=True, timeout=30) == "200\n"
        ask("POST", "mlflow/experiments/create", json={"name": "churn"}).raise_for_status()
        found = ask("GET", "mlflow/experiments/get-by-name", params={"experiment_name": "churn"}).json()
        assert found["experiment"]["artifact_location"].startswith("mlflow-artifacts:")
        ask("PUT", "mlflow-artifacts/artifacts/1/MLmodel", content=b"flavors").raise_for_status()
        assert ask("GET", "mlflow-artifacts/artifacts/1/MLmodel").content == b"flavors"
    assert (tmp_path / "registry" / "artifacts" / "1" / "MLmodel").read_bytes() == b"flavors"
    assert (tmp_path / "registry" / "mlflow.db").is_file()


def test_with_logins_only_those_promote_who_were_granted_it(tmp_path: Path):
    """The commands of docs/kubernetes.md, and then `promote.py` with each login."""
    commands = re.findall(r"^\$ (\.venv/bin/python .*|curl .*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [".venv/bin/python", *["curl"] * 5]
    *granted, revoked, edited = commands
    alias = {"name": "churn", "alias": "production"}
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    with running(tmp_path, free_port(), "registry-login") as url:

        def paste(command: str, username: str) -> subprocess.CompletedProcess[str]:
            login = {"MLFLOW_TRACKING_USERNAME": username, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
            return subprocess.run(
                [
                    "bash",
                    "-c",
                    command.replace("…", PASSWORD).replace(".venv/bin/python", shlex.quote(sys.executable)),
                ],
                cwd=tmp_path,
                env=clean_environment() | {"MLFLOW_TRACKING_URI": url, "SERVING_MODEL_NAME": "churn"} | login,
                capture_output=True,
                text=True,
                timeout=120,
            )

        def ask(username: str, method: str, path: str, **more: Any) -> httpx.Response:
            login = (username, PASSWORD) if username else None
            return httpx.request(method, f"{url}/api/2.0/mlflow/{path}", auth=login, timeout=30, **more)

        def production() -> dict[str, str]:
            found = ask("model-server", "GET", "registered-models/alias", params=alias).raise_for_status()
            return dict(found.json()["model_version"])

        def as_admin(*commands: str) -> None:
            for command in commands:
                done = paste(command, "admin")
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

        as_admin(*granted)
        first = production()
        model = {"source": first["source"], "model_id": first["source"].removeprefix("models:/")}
        for _ in range(2):
            ask("admin", "POST", "model-versions/create", json={"name": "churn", **model}).raise_for_status()

        refused = paste(".venv/bin/python scripts/promote.py 2", "model-server")
        assert (refused.returncode, production()["version"]) == (2, "1"), refused.stdout + refused.stderr
        assert "this login needs EDIT on the registered model" in refused.stderr
        promoted = paste(".venv/bin/python scripts/promote.py 2", "promoter")
        assert (promoted.returncode, production()["version"]) == (0, "2"), promoted.stdout + promoted.stderr
        by_steps = ".venv/bin/python scripts/promote.py 3 --percent 10,100 --dry-run --url "
        with FakeService(lambda: {"production": "2"}).running() as service:
            service.model = "churn"
            planned = paste(by_steps + service.url, "promoter")
            assert planned.returncode == 0, planned.stderr
            as_admin(revoked, edited)
            refused = paste(by_steps + service.url, "promoter")
            assert refused.returncode == 2
            assert "it needs the permission MANAGE on the registered model" in refused.stderr
        promoted = paste(".venv/bin/python scripts/promote.py 3", "promoter")
        assert (promoted.returncode, production()["version"]) == (0, "3"), promoted.stdout + promoted.stderr
        # Who may not even read.
        assert ask("", "GET", "registered-models/alias", params=alias).status_code == 401
        back_up(tmp_path)
    with tarfile.open(tmp_path / "registry.tgz") as archive:
        archive.extractall(tmp_path / "restored", filter="data")
    assert {file.name for file in (tmp_path / "restored").iterdir()} == {
        "mlflow.db",
        "basic_auth.db",
        "artifacts",
    }
    with contextlib.closing(sqlite3.connect(tmp_path / "restored" / "mlflow.db")) as database:
        assert database.execute("SELECT max(version) FROM model_versions").fetchone() == (3,)


def back_up(folder: Path) -> None:
    """Runs the page's command for a backup as if in the pod whose volumes are in the folder."""
    (command,) = re.findall(r"^\$ kubectl exec -n mlflow deployment/mlflow -- (.*)$", PAGE, re.MULTILINE)
    volumes = {"/var/lib/mlflow": folder / "registry", "/tmp": folder / "tmp"}
    command = re.sub("|".join(volumes), lambda found: str(volumes[found[0]]), command)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", command], cwd=folder, env={"PATH": path}, check=True, timeout=60)


def allowed(who: str) -> set[str]:
    """The permissions on the bucket that the page's table has for somebody."""
    (row,) = re.findall(rf"^\| {who}.*$", PAGE, re.MULTILINE)
    return set(re.findall(r"`(s3:\w+)`", row))


def key_for(actions: set[str], bucket: str, store: Store) -> dict[str, str]:
    """Variables of a new user who may do this, and nothing else."""
    root = {name.removeprefix("AWS_").lower(): value for name, value in store.environment.items()}
    iam = boto3.client(
        "iam",
        endpoint_url=store.environment["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=root["access_key_id"],
        aws_secret_access_key=root["secret_access_key"],
        region_name=root["default_region"],
    )
    name = "-".join(sorted(action.removeprefix("s3:") for action in actions))
    on_bucket = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": f"arn:aws:s3:::{bucket}"}
    on_objects = {
        "Effect": "Allow",
        "Action": sorted(actions - {"s3:ListBucket"}),
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = {
        "Version": "2012-10-17",
        "Statement": [on_objects, *([on_bucket] if "s3:ListBucket" in actions else [])],
    }
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="store", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return store.environment | {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


def test_with_files_in_s3_everybody_needs_the_permissions_that_the_page_has(tmp_path: Path):
    """With an S3 that checks them, and a registry that has no credentials for it."""
    bucket = urlsplit(environment("registry-s3")["MLFLOW_DEFAULT_ARTIFACT_ROOT"]).netloc
    trainings, pods = allowed("trainings:"), allowed("pods;")
    assert allowed("`rollback.py`") == set()
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    with s3(tmp_path, bucket) as store, running(tmp_path, free_port(), "registry-s3") as url:
        trainer, pod_, too_little = (
            key_for(actions, bucket, store) for actions in (trainings, pods, pods - {"s3:ListBucket"})
        )
        login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}

        def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments],
                cwd=tmp_path,
                env=clean_environment() | {"MLFLOW_TRACKING_URI": url} | login | variables,
                capture_output=True,
                text=True,
                timeout=120,
            )

        train = ("scripts/train.py", "--name", "churn", "--estimator", "linear", "--promote")
        with permissions_checked(store):
            refused = run(*train, **pod_)
            assert refused.returncode == 2
            assert re.search(
                rf"S3 did not take the model's files \(s3://{bucket}/.*\): AccessDenied; set AWS_",
                refused.stderr,
            )
            trained = run(*train, **trainer)
            assert trained.returncode == 0, trained.stderr
            download = (
                "-c",
                "import mlflow, sys; mlflow.artifacts.download_artifacts('models:/churn@production', dst_path='.')",
            )
            assert run(*download, **too_little).returncode == 1
            assert run(*download, **pod_).returncode == 0
    assert (tmp_path / "MLmodel").is_file()
    assert not (tmp_path / "registry" / "artifacts").exists()
