"""The rules that kube-score and kube-linter have, on every pod of every build."""

import re

import pytest

from scripts.canary import STEPS
from scripts.rollout.deployments import pods_for
from tests.kubernetes.building import (
    ALL_BUILDS,
    BUILDS,
    K8S,
    all_pods,
    build,
    named,
    of_kind,
    pods_of,
    policy_selects,
    selects,
)
from tests.support.environment import ROOT

EVERY_BUILD = pytest.mark.parametrize(("overlay", "components"), BUILDS)
EVERYTHING = pytest.mark.parametrize(("overlay", "components"), ALL_BUILDS)

USERS = {"model-server": 1034, "scripts": 1034, "kserve-container": 1034, "mlflow": 1035}
"""Of the images, by the container's name."""


def containers(documents):
    return [container for _, pod in all_pods(documents) for container in pod["containers"]]


@EVERYTHING
def test_there_are_pods(overlay, components):
    assert containers(build(overlay, components))


@EVERY_BUILD
def test_images_have_a_tag_that_does_not_move(overlay, components):
    for container in containers(build(overlay, components)):
        assert re.fullmatch(
            r"registry\.example/model-server(:\d+\.\d+\.\d+|@sha256:\w{64})", container["image"]
        )


@EVERYTHING
def test_everything_is_requested_and_limited(overlay, components):
    for container in containers(build(overlay, components)):
        for bound in ("requests", "limits"):
            assert set(container["resources"][bound]) == {"cpu", "memory", "ephemeral-storage"}


@EVERYTHING
def test_memory_is_requested_as_far_as_it_is_allowed(overlay, components):
    for container in containers(build(overlay, components)):
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]


@EVERYTHING
def test_nobody_is_root_or_can_become_it(overlay, components):
    for _, pod in all_pods(build(overlay, components)):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        (user,) = {USERS[container["name"]] for container in pod["containers"]}
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, user, user)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }


@EVERYTHING
def test_no_pod_has_the_hosts_or_the_clusters_rights(overlay, components):
    documents = build(overlay, components)
    (account,) = of_kind(documents, "ServiceAccount")
    for _, pod in all_pods(documents):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["serviceAccountName"] == account["metadata"]["name"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} in ({"emptyDir"}, {"persistentVolumeClaim"}, {"configMap"})


@EVERY_BUILD
def test_what_is_written_is_on_a_volume(overlay, components):
    for _, pod in all_pods(build(overlay, components)):
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        assert set(mounts.values()) == {"/tmp", environment.get("BENTOML_HOME", "/tmp")}


@EVERY_BUILD
def test_secrets_are_by_reference_and_may_be_missing(overlay, components):
    documents = build(overlay, components)
    assert of_kind(documents, "Secret") == []
    for container in containers(documents):
        for entry in container["env"]:
            if re.search(r"SECRET|PASSWORD|TOKEN|USERNAME", entry["name"]):
                assert entry["valueFrom"]["secretKeyRef"]["optional"] is True
    for document in of_kind(documents, "ConfigMap"):
        assert not re.search(r"SECRET|PASSWORD|TOKEN|USERNAME|://[^/]*@", str(document["data"]))


@EVERYTHING
def test_every_service_budget_and_policy_selects_pods(overlay, components):
    documents = build(overlay, components)
    labels = [labels for labels, _ in all_pods(documents)]
    for document in of_kind(documents, "Service", "PodDisruptionBudget"):
        selector = document["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        assert selector, named(document)
        assert any(selects(selector, one) for one in labels), named(document)
    for document in of_kind(documents, "NetworkPolicy"):
        policy = document["spec"]
        assert not policy["podSelector"] or any(policy_selects(policy, one) for one in labels), named(
            document
        )


@EVERYTHING
def test_every_pod_is_behind_a_policy(overlay, components):
    documents = build(overlay, components)
    policies = [policy["spec"] for policy in of_kind(documents, "NetworkPolicy")]
    restricting = [policy for policy in policies if set(policy["policyTypes"]) == {"Ingress", "Egress"}]
    for labels, _ in all_pods(documents):
        assert any(policy_selects(policy, labels) for policy in restricting)


@EVERY_BUILD
def test_other_pods_of_the_namespace_reach_nothing_and_nobody(overlay, components):
    policies = [policy["spec"] for policy in of_kind(build(overlay, components), "NetworkPolicy")]
    assert [one for one in policies if not one["podSelector"]] == [
        {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ]


@EVERYTHING
def test_no_two_deployments_share_their_pods(overlay, components):
    documents = of_kind(build(overlay, components), "Deployment")
    for document in documents:
        selector = document["spec"]["selector"]["matchLabels"]
        others = [labels for other in documents for labels, _ in pods_of(other) if selects(selector, labels)]
        assert others == [document["spec"]["template"]["metadata"]["labels"]]


@EVERY_BUILD
def test_a_drained_node_takes_one_pod_of_each_deployment_at_a_time(overlay, components):
    documents = build(overlay, components)
    budgets = [budget["spec"] for budget in of_kind(documents, "PodDisruptionBudget")]
    for deployment in of_kind(documents, "Deployment"):
        ((labels, _),) = pods_of(deployment)
        # Of a pod with two budgets the cluster evicts none at all.
        (budget,) = [one for one in budgets if selects(one["selector"]["matchLabels"], labels)]
        assert budget["maxUnavailable"] == 1


@EVERY_BUILD
def test_what_is_scaled_exists_and_has_no_number_of_its_own(overlay, components):
    documents = {named(document): document for document in build(overlay, components)}
    for document in of_kind(tuple(documents.values()), "HorizontalPodAutoscaler", "ScaledObject"):
        target = document["spec"]["scaleTargetRef"]
        scaled = documents[f"{target.get('kind', 'Deployment')}/{target['name']}"]
        assert "replicas" not in scaled["spec"]


@EVERY_BUILD
def test_nothing_is_scaled_twice(overlay, components):
    scalers = of_kind(build(overlay, components), "HorizontalPodAutoscaler", "ScaledObject")
    targets = [scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers]
    assert len(targets) == len(set(targets))


def test_what_a_canary_of_pods_requests_is_told():
    documents = build("production", "canary-pods")
    (autoscaler,) = of_kind(documents, "HorizontalPodAutoscaler")
    n_stable = autoscaler["spec"]["minReplicas"]
    n = n_stable + max(pods_for(percent, n_stable) for percent in STEPS)
    cpus, gib = (
        {container["resources"]["requests"][kind] for container in containers(documents)}
        for kind in ("cpu", "memory")
    )
    assert (cpus, gib) == ({"1"}, {"1Gi"})
    head = (K8S / "components" / "canary-pods" / "kustomization.yaml").read_text()
    for told in (head.replace("\n# ", " "), (ROOT / "docs" / "deploy.md").read_text().replace("\n", " ")):
        assert f"production's {n_stable} pods become {n}, which request {n} processors and {n} GiB" in told


@pytest.mark.parametrize("components", ["seldon", "seldon-canary", "kserve"])
def test_pods_that_others_run_are_as_the_deployments(components):
    ((_, ours),) = all_pods(build("production"))

    def same(pod):
        (container,) = pod["containers"]
        kept = ("image", "ports", "env", "startupProbe", "livenessProbe", "readinessProbe", "resources")
        return (
            {name: container[name] for name in (*kept, "securityContext", "volumeMounts")},
            {name: pod[name] for name in ("terminationGracePeriodSeconds", "enableServiceLinks", "volumes")},
        )

    for _, pod in all_pods(build("production", components)):
        pod["containers"][0]["image"] = pod["containers"][0]["image"].replace("1.1.0", "1.0.0")
        assert same(pod) == same(ours)
