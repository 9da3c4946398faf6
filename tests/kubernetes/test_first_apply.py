"""The order of docs/deploy.md on an empty cluster: a real kubectl, and a double of the API that has no namespaces yet."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.kubernetes.building import OVERLAYS, build, builders
from tests.scripts.rollout.kube_api import write_kubeconfig
from tests.support.api_server import ApiHandler
from tests.support.doubles import Double
from tests.support.environment import ROOT, clean_environment

PAGE = (ROOT / "docs" / "deploy.md").read_text()

PLURALS = {"NetworkPolicy": "networkpolicies"}
"""Of kinds whose plural is not the name with an s."""

COLLECTION = re.compile(
    r"/apis?/(?:[\w.]+/)?v\d\w*/(?:namespaces/(?P<namespace>[\w-]+)/)?(?P<plural>[a-z]+)$"
)


def plural_of(kind: str) -> str:
    return PLURALS.get(kind, f"{kind.lower()}s")


class EmptyCluster(Double):
    """Takes everything, but nothing into a namespace that it does not have; a dry run leaves nothing behind.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#namespacelifecycle
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.namespaces: set[str] = set()
        self.taken: list[str] = []
        self.kinds: dict[str, set[str]] = {}
        """Kinds by the path of their version."""
        for overlay in OVERLAYS:
            for one in build(overlay):
                api = one["apiVersion"]
                path = f"/apis/{api}" if "/" in api else f"/api/{api}"
                self.kinds.setdefault(path, set()).add(one["kind"])


class _Handler(ApiHandler):
    server: EmptyCluster

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        kinds = {
            version: [(plural_of(kind), kind) for kind in kinds]
            for version, kinds in self.server.kinds.items()
        }
        if self.discover(path, kinds):
            return
        if (name := path.removeprefix("/api/v1/namespaces/")) in self.server.namespaces:
            self.say({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
        else:
            self.refuse(f'"{path}" not found')

    def do_POST(self) -> None:
        document = self.read()
        parts = urlsplit(self.path)
        found = COLLECTION.fullmatch(parts.path)
        assert found, parts.path
        is_dry = parse_qs(parts.query).get("dryRun") == ["All"]
        if found["namespace"] and found["namespace"] not in self.server.namespaces:
            self.refuse(f'namespaces "{found["namespace"]}" not found')
            return
        if document["kind"] == "Namespace" and not is_dry:
            self.server.namespaces.add(document["metadata"]["name"])
        self.server.taken.append(f"{document['kind']}{' (dry run)' if is_dry else ''}")
        self.say(document, 201)

    def do_PATCH(self) -> None:
        self.read()
        self.do_GET()


@pytest.fixture
def cluster() -> Iterator[EmptyCluster]:
    if "kubectl" not in builders():
        pytest.skip("needs kubectl")
    with EmptyCluster().running() as running:
        yield running


def test_the_namespace_comes_before_the_dry_run_of_the_rest(cluster: EmptyCluster, tmp_path: Path):
    write_kubeconfig(tmp_path / "kubeconfig", cluster.url)

    def run(command: str) -> subprocess.CompletedProcess[str]:
        # The double publishes no schemas to validate by; tests/kubernetes/test_schemas.py does that.
        return subprocess.run(
            [*shlex.split(command), "--validate=ignore"],
            cwd=ROOT,
            env=clean_environment() | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    (dry_run,) = re.findall(r"`(kubectl apply -k \S+ --dry-run=server)`", PAGE)
    (first,) = set(re.findall(r"kubectl apply -f k8s/overlays/production/namespace\.yaml", PAGE))
    refused = run(dry_run)
    assert refused.returncode == 1
    assert 'namespaces "model-server" not found' in refused.stderr
    assert cluster.namespaces == set()
    made = run(first)
    assert made.returncode == 0, made.stderr
    cluster.taken.clear()
    done = run(dry_run)
    assert done.returncode == 0, done.stderr
    rest = [one["kind"] for one in build("production") if one["kind"] != "Namespace"]
    assert sorted(cluster.taken) == sorted(f"{kind} (dry run)" for kind in rest)
