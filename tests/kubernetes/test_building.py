"""Every overlay builds, alone and with each component, and every file says what it is for."""

import pytest

from tests.kubernetes.building import (
    ALL_BUILDS,
    COMPONENTS,
    EXAMPLES,
    K8S,
    OVERLAYS,
    build,
    build_text,
    builders,
    named,
    of_kind,
)
from tests.support.environment import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()

FILES = sorted([*K8S.rglob("*.yaml"), *(ROOT / "monitoring").rglob("*.yaml")])


@pytest.mark.parametrize(("overlay", "components"), ALL_BUILDS)
def test_it_builds_and_says_nothing_twice(overlay, components):
    names = [named(document) for document in build(overlay, components)]
    assert len(names) == len(set(names)) > 5


@pytest.mark.parametrize(("overlay", "components"), ALL_BUILDS)
def test_everything_is_in_the_overlays_namespace(overlay, components):
    documents = build(overlay, components)
    (namespace,) = (document["metadata"]["name"] for document in of_kind(documents, "Namespace"))
    assert {document["metadata"].get("namespace", namespace) for document in documents} == {namespace}


@pytest.mark.parametrize("component", COMPONENTS)
def test_all_builders_that_are_installed_agree(component):
    build("production")
    built = {build_text("production", component, builder) for builder in builders()}
    assert len(built) == 1


def test_the_overlays_do_not_share_a_namespace():
    assert len({of_kind(build(overlay), "Namespace")[0]["metadata"]["name"] for overlay in OVERLAYS}) == 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_file_opens_with_what_it_is_and_needs(file):
    head = file.read_text().split("\napiVersion")[0].split("\ngroups:")[0]
    assert head.startswith("# ")
    if file.name != "rules_test.yaml":
        assert "# Needs: " in head or head.startswith("# Needs: ")


@pytest.mark.parametrize(
    "folder", [*(f"components/{name}" for name in COMPONENTS), *(f"examples/{name}" for name in EXAMPLES)]
)
def test_every_component_and_example_says_how_to_undo_it(folder):
    assert "\n# Undo: " in (K8S / folder / "kustomization.yaml").read_text()


def test_every_component_is_documented():
    assert [name for name in COMPONENTS if f"`{name}`" not in PAGE] == []


def test_the_page_has_the_commands():
    assert "kubectl apply -k k8s/overlays/production" in PAGE
    assert [name for name in EXAMPLES if f"kubectl apply -k k8s/examples/{name}" not in PAGE] == []
