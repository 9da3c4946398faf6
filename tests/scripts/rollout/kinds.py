"""What a canary can be, as the project's own manifests make it."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.kubernetes.building import build, of_kind
from tests.scripts.rollout.kube_api import KubeApi, RolloutController, make_ready

NAMESPACE = "model-server"


class Kind(NamedTuple):
    """One kind of what a canary can be, as the manifests make it."""

    name: str
    arguments: tuple[str, ...]
    add: Callable[[KubeApi], dict[str, Any]]
    """Puts it into a cluster, with a canary that has no traffic yet; returns it."""
    percent: Callable[[dict[str, Any], KubeApi], float]
    """Of the traffic, that the canary has."""
    labels: tuple[dict[str, str], dict[str, str]]
    """That the cluster's Prometheus gives the time series of both sides."""
    parts: tuple[str, str]
    """Of the matchers, by which both sides are told apart."""


def only(component: str, kind: str) -> dict[str, Any]:
    """The document of a kind that a component makes."""
    (document,) = of_kind(build("production", component), kind)
    return copy.deepcopy(document)


def add_route(cluster: KubeApi) -> dict[str, Any]:
    document = only("gateway", "HTTPRoute")
    stable, canary = document["spec"]["rules"][0]["backendRefs"]
    stable["weight"], canary["weight"] = 1, 0
    return cluster.add("httproutes", document)


def add_seldon(cluster: KubeApi) -> dict[str, Any]:
    document = only("seldon-canary", "SeldonDeployment")
    stable, canary = document["spec"]["predictors"]
    stable["traffic"], canary["traffic"] = 100, 0
    return cluster.add("seldondeployments", document)


def add_deployments(cluster: KubeApi) -> dict[str, Any]:
    cluster.controllers.append(make_ready)
    documents = build("production", "canary-pods")
    for document in of_kind(documents, "Service", "HorizontalPodAutoscaler"):
        plural = {"Service": "services"}.get(document["kind"], "horizontalpodautoscalers")
        cluster.add(plural, document)
    for document in map(copy.deepcopy, of_kind(documents, "Deployment")):
        is_canary = document["metadata"]["name"].endswith("-canary")
        document["spec"]["replicas"] = 0 if is_canary else 4
        added = cluster.add("deployments", document)
        if not is_canary:
            stable = added
    return stable


def add_rollout(cluster: KubeApi) -> dict[str, Any]:
    deployment = of_kind(build("production", "canary-steps"), "Deployment")[0]
    cluster.add("deployments", deployment)
    document = only("canary-steps", "Rollout")
    document["status"] = {
        "stableRS": "7c9d8f",
        "currentPodHash": "5b6f4d",
        "workloadObservedGeneration": "1",
        "replicas": 4,
    }
    cluster.controllers.append(RolloutController())
    return cluster.add("rollouts", document)


def weight_of_route(document: dict[str, Any], _: KubeApi) -> float:
    stable, canary = (one["weight"] for one in document["spec"]["rules"][0]["backendRefs"][:2])
    return 100 * canary / (stable + canary)


def weight_of_seldon(document: dict[str, Any], _: KubeApi) -> float:
    return document["spec"]["predictors"][1]["traffic"]


def part_of_pods(document: dict[str, Any], cluster: KubeApi) -> float:
    stable = document["spec"]["replicas"]
    canary = cluster.objects["deployments/model-server-canary"]["spec"]["replicas"]
    return 100 * canary / (stable + canary)


def weight_of_rollout(document: dict[str, Any], cluster: KubeApi) -> float:
    return cluster.controllers[-1].weights[-1]


KINDS = (
    Kind(
        "httproute",
        ("model-server-gateway",),
        add_route,
        weight_of_route,
        ({"service": "model-server"}, {"service": "model-server-next"}),
        ('service="model-server"', 'service="model-server-next"'),
    ),
    Kind(
        "seldondeployment",
        ("model-server",),
        add_seldon,
        weight_of_seldon,
        (
            {"pod": "model-server-main-0-model-server-7c9d8f-abcde"},
            {"pod": "model-server-canary-0-model-server-5b6f4d-fghij"},
        ),
        ('pod=~"model-server-main-[0-9]+-(?:', 'pod=~"model-server-canary-[0-9]+-(?:'),
    ),
    Kind(
        "deployment",
        ("model-server",),
        add_deployments,
        part_of_pods,
        ({"pod": "model-server-7c9d8f-abcde"}, {"pod": "model-server-canary-5b6f4d-fghij"}),
        ('pod=~"model-server-[0-9a-z]+-', 'pod=~"model-server-canary-[0-9a-z]+-'),
    ),
    Kind(
        "rollout",
        ("model-server",),
        add_rollout,
        weight_of_rollout,
        ({"rollouts_pod_template_hash": "7c9d8f"}, {"rollouts_pod_template_hash": "5b6f4d"}),
        ('hash="7c9d8f"', 'hash="5b6f4d"'),
    ),
)
