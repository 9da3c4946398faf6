"""The order of docs/deploy.md on an empty cluster: a real kubectl, and a double of the API that has no namespaces yet."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.kubernetes.building import OVERLAYS, build, builders
from tests.scripts.rollout.kube_api import write_kubeconfig
from tests.support.doubles import Double, Quiet
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


class _Handler(Quiet):
    server: EmptyCluster
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        kinds = self.server.kinds
        if path == "/api":
            self._say({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            groups = []
            for api in filter(re.compile("/apis/").match, kinds):
                group, number = api.removeprefix("/apis/").split("/")
                version = {"groupVersion": f"{group}/{number}", "version": number}
                groups.append({"name": group, "versions": [version], "preferredVersion": version})
            self._say({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        elif path in kinds:
            resources = [
                {
                    "name": plural_of(kind),
                    "singularName": kind.lower(),
                    "namespaced": kind != "Namespace",
                    "kind": kind,
                    "verbs": ["create", "get", "list", "patch"],
                }
                for kind in kinds[path]
            ]
            self._say(
                {
                    "kind": "APIResourceList",
                    "groupVersion": path.split("/", 2)[2],
                    "resources": resources,
                }
            )
        elif (name := path.removeprefix("/api/v1/namespaces/")) in self.server.namespaces:
            self._say({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
        else:
            self._refuse(f'"{path}" not found')

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = urlsplit(self.path)
        found = COLLECTION.fullmatch(parts.path)
        assert found, parts.path
        is_dry = parse_qs(parts.query).get("dryRun") == ["All"]
        if found["namespace"] and found["namespace"] not in self.server.namespaces:
            self._refuse(f'namespaces "{found["namespace"]}" not found')
            return
        if document["kind"] == "Namespace" and not is_dry:
            self.server.namespaces.add(document["metadata"]["name"])
        self.server.taken.append(f"{document['kind']}{' (dry run)' if is_dry else ''}")
        self._say(document, 201)

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def _say(self, document: dict[str, Any], status: int = 200) -> None:
        self.answer(json.dumps(document).encode(), status)

    def _refuse(self, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound"}
        self._say(status | {"message": message, "code": 404}, 404)


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
