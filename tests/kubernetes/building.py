"""Builds the kustomizations as a user would: the overlays as they are, and with components added to them."""

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environment import ROOT
from tests.support.shared import once

K8S = ROOT / "k8s"
OVERLAYS = ("staging", "production")
COMPONENTS = sorted(file.parent.name for file in K8S.glob("components/*/kustomization.yaml"))
TOGETHER = "ingress monitoring requests-per-second canary model-cache"
"""Components of which one cluster may want all."""

EXAMPLES = sorted(file.parent.name for file in K8S.glob("examples/*/kustomization.yaml"))
"""Built as they are, and not by themselves a model server."""

CANARY_IMAGE = {
    "name": "model-server-canary",
    "newName": "registry.example/model-server",
    "newTag": "1.1.0",
}
"""What an overlay has under `images` for the components with a second image."""

BUILDS = [(overlay, chosen) for overlay in OVERLAYS for chosen in ("", *COMPONENTS, TOGETHER)]
ALL_BUILDS = [*BUILDS, *((example, "") for example in EXAMPLES)]

Document = dict[str, Any]


@functools.cache
def builders() -> dict[str, list[str]]:
    """The commands on the path that build a kustomization. Without one the tests are skipped, but never in CI."""
    found = {}
    if shutil.which("kubectl"):
        told = subprocess.run(
            ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True
        )
        # Before 1.21 kubectl had a kustomize of its own that knows no components, and told no version of it.
        if "kustomizeVersion" in (json.loads(told.stdout) if told.returncode == 0 else {}):
            found["kubectl"] = ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        found["kustomize"] = ["kustomize", "build"]
    return found


def build_text(overlay: str, components: str, builder: str) -> str:
    """Returns what a builder makes of an overlay with these components in it, or of an example."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "k8s"
        shutil.copytree(K8S, copy)
        built = copy / ("overlays" if overlay in OVERLAYS else "examples") / overlay
        chosen = [f"../../components/{name}" for name in components.split()]
        if chosen:
            file = built / "kustomization.yaml"
            content = yaml.safe_load(file.read_text())
            content |= {"components": chosen, "images": [*content["images"], CANARY_IMAGE]}
            file.write_text(yaml.safe_dump(content))
        told = subprocess.run(
            [*builders()[builder], str(built)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert told.returncode == 0, told.stderr
    assert not told.stderr, "kustomize warns"
    return told.stdout


@functools.cache
def build(overlay: str, components: str = "") -> tuple[Document, ...]:
    """Returns the documents of an overlay with these components in it, or of an example."""
    if not builders():
        missing = "neither kubectl 1.21 or newer nor kustomize is installed"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)

    def make(folder: Path) -> None:
        documents = list(yaml.safe_load_all(build_text(overlay, components, next(iter(builders())))))
        (folder / "documents.json").write_text(json.dumps(documents))

    made = once("-".join(["manifests", overlay, *components.split()]), make)
    return tuple(json.loads((made / "documents.json").read_bytes()))


def of_kind(documents: tuple[Document, ...], *kinds: str) -> list[Document]:
    """Returns the documents of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def pods_of(document: Document) -> list[tuple[dict[str, str], Document]]:
    """Returns labels and spec of the pods that a document has made, whoever makes them."""
    spec = document.get("spec", {})
    match document["kind"]:
        case "Deployment":
            return [(spec["template"]["metadata"]["labels"], spec["template"]["spec"])]
        case "CronJob":
            template = spec["jobTemplate"]["spec"]["template"]
            return [(template["metadata"]["labels"], template["spec"])]
        case "SeldonDeployment":
            parts = [part for predictor in spec["predictors"] for part in predictor["componentSpecs"]]
            return [(part["metadata"]["labels"], part["spec"]) for part in parts]
        case "InferenceService":
            return [(spec["predictor"]["labels"], spec["predictor"])]
    return []


def all_pods(documents: tuple[Document, ...]) -> list[tuple[dict[str, str], Document]]:
    """Returns labels and spec of all pods."""
    return [pod for document in documents for pod in pods_of(document)]


def server_pods(documents: tuple[Document, ...]) -> list[tuple[dict[str, str], Document]]:
    """Returns labels and spec of the pods that serve."""
    return [pod for one in documents if one["kind"] != "CronJob" for pod in pods_of(one)]


def named(document: Document) -> str:
    """Returns kind and name, to find a document by."""
    return f"{document['kind']}/{document['metadata']['name']}"


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Returns whether labels to match select pods with these."""
    return selector.items() <= labels.items()


def policy_selects(policy: Document, labels: Mapping[str, str]) -> bool:
    """Returns whether a policy's spec is about pods with these labels; never for one that is about all pods."""
    selector = policy["podSelector"]
    alternatives = selector.get("matchExpressions", [])
    assert {one["operator"] for one in alternatives} <= {"In"}
    return (
        bool(selector)
        and selects(selector.get("matchLabels", {}), labels)
        and all(labels.get(one["key"]) in one["values"] for one in alternatives)
    )
