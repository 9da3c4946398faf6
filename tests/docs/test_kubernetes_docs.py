"""docs/kubernetes.md, and the addresses on all pages: what they say to write is what manifests and cluster take."""

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.kubernetes import building
from tests.kubernetes.building import (
    K8S,
    OVERLAYS,
    Document,
    all_pods,
    build,
    builders,
    named,
    of_kind,
    server_pods,
)
from tests.kubernetes.validating import VERSIONS, problems
from tests.support.environment import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "kubernetes.md").read_text()
COMMANDS = re.findall(r"^\$ (kubectl .*)$", PAGE, re.MULTILINE)
PATCHES = [
    patch
    for block in re.findall(r"^```yaml\n(patches:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for patch in yaml.safe_load(block)["patches"]
]
"""In the order of the page; the last is for one of two overlays only."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Document, ...]:
    """Production with callers in other namespaces and everything that the page adds to it."""
    build("production")  # without a builder it is skipped, or fails, there
    folder = tmp_path_factory.mktemp("pages") / "k8s"
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(K8S, folder)
        file = folder / "overlays" / "production" / "kustomization.yaml"
        content = yaml.safe_load(file.read_text())
        content["patches"] += PATCHES[:-1]
        file.write_text(yaml.safe_dump(content))
        patch.setattr(building, "K8S", folder)
        text = building.build_text(
            "production", "ingress callers monitoring scripts cloud-identity", next(iter(building.builders()))
        )
    return tuple(yaml.safe_load_all(text))


def test_what_the_page_adds_to_an_overlay_is_built_and_valid(built: tuple[Document, ...]):
    assert len(PATCHES) == 13
    (ingress,) = of_kind(built, "Ingress")
    assert (
        ingress["spec"]["rules"][0]["host"] == ingress["spec"]["tls"][0]["hosts"][0] == "churn.shop.example"
    )
    assert {named(one): problems(one, VERSIONS[-1]) for one in built if problems(one, VERSIONS[-1])} == {}
    (account,) = of_kind(built, "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    assert len(all_pods(built)) == 2
    for _, pod in all_pods(built):
        (container,) = pod["containers"]
        settings, store = container["envFrom"]
        assert settings["configMapRef"]["name"].startswith("model-server-")
        assert f" {store['secretRef']['name']} " in created_for_the_store()
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(built, "NetworkPolicy")}
    for name in ("model-server", "model-server-scripts"):
        (ports,) = [rule["ports"] for rule in policies[name]["egress"] if {"port": 443} in rule["ports"]]
        assert {"port": 9000} in ports
    (identity,) = policies["model-server-cloud-identity"]["egress"]
    assert {peer["ipBlock"]["cidr"] for peer in identity["to"]} == {"169.254.170.23/32", "fd00:ec2::23/128"}
    (server,) = [pod for _, pod in server_pods(built)]
    assert {one["name"] for one in server["volumes"]} == {"models", "tmp", "predictions"}
    (scripts,) = [pod for _, pod in all_pods(built) if pod["containers"][0]["name"] == "scripts"]
    assert {one["name"] for one in scripts["volumes"]} == {"tmp", "predictions"}
    assert {one["name"] for one in server["containers"][0]["volumeMounts"]} == {
        "models",
        "tmp",
        "predictions",
    }
    ((scraper,),) = (rule["from"] for rule in policies["model-server-monitoring"]["ingress"])
    assert set(scraper) == {"namespaceSelector", "podSelector"}
    for one in of_kind(built, "ServiceMonitor", "PrometheusRule"):
        assert one["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def created_for_the_store() -> str:
    (created,) = [
        command for command in COMMANDS if command.startswith("kubectl create secret generic store ")
    ]
    return created


def test_one_copy_of_the_rules_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build("staging")
    shutil.copytree(K8S, tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / "staging" / "kustomization.yaml"
    content = yaml.safe_load(file.read_text())
    content["patches"].append(PATCHES[-1])
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(building, "K8S", tmp_path / "k8s")
    text = building.build_text("staging", "monitoring", next(iter(building.builders())))
    documents = tuple(yaml.safe_load_all(text))
    assert of_kind(documents, "PrometheusRule") == []
    assert len(of_kind(documents, "ServiceMonitor")) == 1


def test_an_overlay_over_the_registry_sets_its_image_and_bucket(tmp_path: Path):
    (block,) = re.findall(r"^```yaml\n(resources:\n  - https.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    command = next(iter(builders().values()), None) or pytest.skip("needs kubectl or kustomize")
    shutil.copytree(K8S, tmp_path / "k8s")
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(re.sub(r"https://\S+//(\S+)\?ref=\S+", r"../\1", block))
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60, check=True)
    ((_, pod),) = all_pods(tuple(yaml.safe_load_all(done.stdout)))
    (container,) = pod["containers"]
    assert container["image"].startswith("registry.shop.example/mlflow:")
    (bucket,) = [one["value"] for one in container["env"] if str(one.get("value")).startswith("s3://")]
    assert bucket == "s3://models-shop/mlflow"


def test_the_rule_that_narrows_dns_is_a_valid_one():
    (block,) = re.findall(r"^```yaml\n(to:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    policy = copy.deepcopy(next(one for one in of_kind(build("production"), "NetworkPolicy")))
    (rule,) = [one for one in policy["spec"]["egress"] if "to" not in one]
    rule.update(yaml.safe_load(block))
    assert {port["port"] for port in rule["ports"]} == {53}
    assert problems(policy, VERSIONS[-1]) == []


def test_its_secrets_and_role_are_those_of_the_manifests():
    told = set(re.findall(r"kubectl create secret generic (\S+) -n ([\w-]+)", PAGE))
    read = {
        (entry["valueFrom"]["secretKeyRef"]["name"], namespace)
        for namespace, documents in (
            ("model-server", build("production", "scripts feedback")),
            ("mlflow", build("registry-login")),
        )
        for _, pod in all_pods(documents)
        for entry in pod["containers"][0]["env"]
        if "valueFrom" in entry
    }
    assert told == read - {("model-server-webhook", "model-server")} | {("store", "model-server")}
    (role,) = of_kind(build("production", "scripts"), "Role")
    assert re.findall(r"--role=(\S+)", PAGE) == [role["metadata"]["name"]]


def test_the_names_in_the_secret_are_those_of_the_store():
    names = re.findall(r"--from-literal=(\w+)=", created_for_the_store())
    told = (DOCS / "stores.md").read_text()
    assert names
    assert [name for name in names if f"`{name}`" not in told] == []


def test_the_namespaces_that_it_labels_are_let_in(built: tuple[Document, ...]):
    (label,) = re.findall(r"kubectl label namespace \w+ (\S+)=(\S+)", PAGE)
    peers = [
        peer
        for policy in of_kind(built, "NetworkPolicy")
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
    ]
    (peer,) = [one for one in peers if one.get("namespaceSelector") == {"matchLabels": dict([label])}]
    assert peer["podSelector"] == {"matchLabels": {"app": "shop"}}


def test_an_image_that_is_an_examples_is_found(tmp_path: Path):
    build("production")
    (command,) = [one for one in COMMANDS if one.startswith("kubectl kustomize ")]
    shutil.copytree(K8S, tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / "production" / "kustomization.yaml"
    content = yaml.safe_load(file.read_text())

    def found(components: list[str], image: str) -> list[str]:
        file.write_text(
            yaml.safe_dump(
                content
                | {"components": [f"../../components/{one}" for one in components]}
                | {"images": [{"name": "model-server", "newName": image, "newTag": "1"}]}
            )
        )
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        return done.stdout.split()[1::2]

    assert found([], "registry.example/model-server") == ["registry.example/model-server:1"]
    assert found([], "images.shop.test/model-server") == []
    assert found(["canary-pods"], "images.shop.test/model-server") == ["model-server-canary:overlay"]


def open_addresses() -> set[tuple[str, int]]:
    """Host and port of every Service of the overlays and of the registry."""
    return {
        (f"{one['metadata']['name']}.{one['metadata']['namespace']}", port["port"])
        for built in (*OVERLAYS, "registry")
        for one in of_kind(build(built), "Service")
        for port in one["spec"]["ports"]
    }


def urls() -> list[tuple[str, str]]:
    """Pages and heads of manifests with the URLs of Services in them, NAMESPACE being production's."""
    files = [*DOCS.glob("*.md"), ROOT / "README.md", *K8S.rglob("*.yaml")]
    return sorted(
        (str(file.relative_to(ROOT)), url)
        for file in files
        for url in re.findall(
            r"http://(?:model-server(?:-pods)?|mlflow)\.(?:NAMESPACE|model-server[\w-]*|mlflow)\b(?::\d+)?",
            file.read_text(),
        )
    )


def test_every_service_is_called_at_a_port_that_it_has():
    asked: list[tuple[str, Any]] = []
    for page, url in urls():
        parts = urlsplit(url.replace("NAMESPACE", "model-server"))
        asked.append((page, (parts.hostname, parts.port or 80)))
    assert len({page for page, _ in asked}) > 5
    assert [(page, address) for page, address in asked if address not in open_addresses()] == []


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(k8s/[\w./-]+)`", PAGE))))
def test_its_files_are_there(file: str):
    assert (ROOT / file).exists()
