"""Validates documents against the schemas of a Kubernetes version, and of the CRDs in `schemas/`."""

import functools
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

VERSIONS = tuple(f"1.{minor}" for minor in range(30, 37))

CRDS = {
    file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent / "schemas").glob("*.json")
}


def _own(version: str, file: str) -> Any:
    """Returns one of Kubernetes' own schemas, the strict one: a field that it does not know is an error."""
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
    return json.loads((folder / f"v{version}.0-local-strict" / file).read_text())


@functools.cache
def _registry(version: str) -> Registry[Any]:
    return Registry().with_resource(
        "https://kubernetes.io/api/_definitions.json",
        Resource.from_contents(_own(version, "_definitions.json")),
    )


@functools.cache
def _validator(version: str, api: str, kind: str) -> Draft202012Validator:
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)  # networking.k8s.io/v1 -> networking-v1
    schema = CRDS.get(kind.lower()) or _own(version, f"{kind.lower()}-{short}.json")
    return Draft202012Validator(schema, registry=_registry(version))


def problems(document: dict[str, Any], version: str) -> list[str]:
    """Returns what a server of this version would find wrong in a document."""
    validator = _validator(version, document["apiVersion"], document["kind"])
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(document)]
