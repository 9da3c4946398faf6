"""What Argo CD and Flux are told: paths that build, into the namespace that they name."""

import re

import yaml

from tests.kubernetes.building import K8S, build, of_kind
from tests.support.environment import ROOT


def documents_of(name):
    return list(yaml.safe_load_all((K8S / "gitops" / name).read_text()))


def overlay_at(path):
    """The overlay that a path from the repository's root leads to."""
    folder = (ROOT / path).resolve()
    assert (folder / "kustomization.yaml").is_file()
    return folder.name


def test_argo_cd_applies_production_and_leaves_the_pods_to_the_autoscaler():
    (application,) = documents_of("argocd.yaml")
    spec = application["spec"]
    built = build(overlay_at(spec["source"]["path"]))
    assert {one["metadata"]["name"] for one in of_kind(built, "Namespace")} == {
        spec["destination"]["namespace"]
    }
    (deployment,) = of_kind(built, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert {"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]} in spec[
        "ignoreDifferences"
    ]


def test_argo_cd_does_not_wait_for_a_template_that_never_starts():
    (cronjob,) = of_kind(build("production", "scripts"), "CronJob")
    assert cronjob["spec"]["suspend"] is True
    # Source: https://argo-cd.readthedocs.io/en/stable/operator-manual/health/
    assert cronjob["metadata"]["annotations"]["argocd.argoproj.io/ignore-healthcheck"] == "true"


def test_flux_applies_production_and_waits_longer_than_a_deployment_may_take():
    repository, kustomization = documents_of("flux.yaml")
    spec = kustomization["spec"]
    built = build(overlay_at(spec["path"]))
    reference = {"kind": repository["kind"], "name": repository["metadata"]["name"]}
    assert spec["sourceRef"] == reference
    (deployment,) = of_kind(built, "Deployment")
    (minutes,) = re.fullmatch(r"(\d+)m", spec["timeout"]).groups()
    assert int(minutes) * 60 > deployment["spec"]["progressDeadlineSeconds"]
