"""The example of a registry: a tracking server that the model servers of both overlays reach, and that really runs."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.kubernetes.building import OVERLAYS, Document, all_pods, build, of_kind
from tests.support.environment import ROOT, free_port, wait_until

DOCKERFILE = (ROOT / "container" / "registry.Dockerfile").read_text()


def pod() -> Document:
    ((_, spec),) = all_pods(build("registry"))
    return spec


def container() -> Document:
    (only,) = pod()["containers"]
    return dict(only)


def environment() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container()["env"]}


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
def running(folder: Path, port: int) -> Iterator[str]:
    """Runs what the container runs, with its variables and no others; yields its URL."""
    mounts = {one["mountPath"]: str(folder / one["name"]) for one in container()["volumeMounts"]}
    assert set(mounts.values()) == {str(folder / volume["name"]) for volume in pod()["volumes"]}

    def here(text: str) -> str:
        text = re.sub(rf"(?<![\w.])({'|'.join(mounts)})\b", lambda found: mounts[found[0]], text)
        return text.replace("--host=0.0.0.0", "--host=127.0.0.1").replace("--port=5000", f"--port={port}")

    for path in mounts.values():
        Path(path).mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [here(word) for word in (*container()["command"], *container()["args"])],
        env={"PATH": path} | {name: here(value) for name, value in environment().items()},
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
                container()[f"{kind}Probe"]["httpGet"]["path"]
                for kind in ("startup", "liveness", "readiness")
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
        ask("POST", "mlflow/experiments/create", json={"name": "churn"}).raise_for_status()
        found = ask("GET", "mlflow/experiments/get-by-name", params={"experiment_name": "churn"}).json()
        assert found["experiment"]["artifact_location"].startswith("mlflow-artifacts:")
        ask("PUT", "mlflow-artifacts/artifacts/1/MLmodel", content=b"flavors").raise_for_status()
        assert ask("GET", "mlflow-artifacts/artifacts/1/MLmodel").content == b"flavors"
    assert (tmp_path / "registry" / "artifacts" / "1" / "MLmodel").read_bytes() == b"flavors"
    assert (tmp_path / "registry" / "mlflow.db").is_file()
