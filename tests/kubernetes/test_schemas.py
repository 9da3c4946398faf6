"""What is built is valid for every supported Kubernetes, and for the CRDs of whom it is meant for."""

import copy
import json

import pytest

from tests.kubernetes.building import ALL_BUILDS, build, named
from tests.kubernetes.validating import CRDS, VERSIONS, problems


def everything():
    """All different documents of all builds."""
    return {json.dumps(document): document for built in ALL_BUILDS for document in build(*built)}.values()


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_valid(version):
    found = {named(document): problems(document, version) for document in everything()}
    assert {name: list_ for name, list_ in found.items() if list_} == {}


def test_every_crd_schema_is_used():
    assert set(CRDS) <= {document["kind"].lower() for document in everything()}


@pytest.mark.parametrize("kind", [*CRDS, "deployment", "service", "horizontalpodautoscaler", "networkpolicy"])
def test_a_field_that_does_not_exist_is_found(kind):
    document = copy.deepcopy(next(one for one in everything() if one["kind"].lower() == kind))
    assert problems(document, VERSIONS[0]) == []
    document["spec"]["fieldThatIsNot"] = 1
    assert len(problems(document, VERSIONS[0])) == 1


@pytest.mark.parametrize("kind", ["deployment", "seldondeployment", "inferenceservice"])
def test_a_mistake_deep_in_a_pod_is_found(kind):
    text = json.dumps(next(one for one in everything() if one["kind"].lower() == kind))
    document = json.loads(text.replace('"periodSeconds": 10', '"periodSeconds": "ten"'))
    assert problems(document, VERSIONS[-1])
