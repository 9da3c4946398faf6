"""Names, numbers and paths of the manifests are those of the code."""

import re
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from prometheus_client.metrics import MetricWrapperBase

from serving import errors
from serving.http import gateway
from serving.monitoring import metrics, swaps
from serving.monitoring.drift.exposition import LABELS
from serving.monitoring.drift.exposition import METRICS as DRIFT_METRICS
from serving.monitoring.feedback import metrics as feedback_metrics
from serving.monitoring.feedback.exposition import METRICS as QUALITY_METRICS
from serving.monitoring.prediction_log import metrics as log_metrics
from serving.settings import Settings, load_settings, unknown_variables
from tests.kubernetes.building import BUILDS, OVERLAYS, all_pods, build, of_kind, policy_selects, server_pods
from tests.kubernetes.queries import ADAPTER, all_queries, keda_queries, labels_in, metrics_in, rules
from tests.support.environment import ROOT

EVERY_BUILD = pytest.mark.parametrize(("overlay", "components"), BUILDS)

PORT = BentoMLContainer.http.port.get()

LOGINS = {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"}
OTHERS = {"BENTOML_HOME", "MLFLOW_TRACKING_URI"}


def containers(documents):
    return [container for _, pod in server_pods(documents) for container in pod["containers"]]


def environment_of(container, documents):
    """What a container's variables are; None where they come out of a Secret."""
    maps = {document["metadata"]["name"]: document["data"] for document in of_kind(documents, "ConfigMap")}
    values = {}
    for source in container["envFrom"]:
        values.update(maps[source["configMapRef"]["name"]])
    return values | {entry["name"]: entry.get("value") for entry in container["env"]}


def is_headless(service):
    return service["spec"].get("clusterIP") == "None"


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def megabytes(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 2**20, "Gi": 2**30}[unit] / 1e6


@EVERY_BUILD
def test_every_variable_is_one_that_is_read(overlay, components):
    documents = build(overlay, components)
    for container in containers(documents):
        names = environment_of(container, documents)
        assert unknown_variables(names) == {}
        assert {name for name in names if not name.startswith("SERVING_")} == LOGINS | OTHERS


@EVERY_BUILD
def test_every_value_is_one_that_can_be_used(overlay, components, monkeypatch):
    documents = build(overlay, components)
    for container in containers(documents):
        with monkeypatch.context() as patch:
            patch.setenv("SERVING_LOG_PREDICTIONS", "/var/log/predictions")  # feedback needs it
            secrets = {"SERVING_FEEDBACK_STORE": "postgresql://user:password@host/database"}
            for name, value in environment_of(container, documents).items():
                patch.setenv(name, value or secrets.get(name, "from-a-secret"))
            settings = load_settings()
        assert settings.tracking_uri.startswith("http")
        assert settings.webhook_secret is not None
        assert (settings.feedback_store is not None) == (components == "feedback")


@EVERY_BUILD
def test_no_configmap_is_left_over(overlay, components):
    documents = build(overlay, components)
    used = {source["configMapRef"]["name"] for one in containers(documents) for source in one["envFrom"]}
    assert used == {document["metadata"]["name"] for document in of_kind(documents, "ConfigMap")}


def test_the_logins_are_those_of_the_documentation():
    description = Settings.model_fields["tracking_uri"].description
    assert {f"MLFLOW_TRACKING{end}" for end in re.findall(r"_[A-Z]+(?=`)", description)} | {
        "MLFLOW_TRACKING_USERNAME"
    } == LOGINS


@EVERY_BUILD
def test_pods_listen_where_bentoml_does(overlay, components):
    for container in containers(build(overlay, components)):
        assert container["ports"] == [{"name": "http", "containerPort": PORT}]


@EVERY_BUILD
def test_everybody_asks_that_port(overlay, components):
    documents = build(overlay, components)
    for service in of_kind(documents, "Service"):
        assert [(port["name"], port["targetPort"]) for port in service["spec"]["ports"]] == [("http", "http")]
    for policy in of_kind(documents, "NetworkPolicy"):
        assert all(rule["ports"] == [{"port": "http"}] for rule in policy["spec"].get("ingress", []))
    for monitor in of_kind(documents, "ServiceMonitor"):
        assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["http"]
    for ingress in of_kind(documents, "Ingress"):
        paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        assert all(
            path["backend"]["service"] == {"name": "model-server", "port": {"name": "http"}} for path in paths
        )
    for seldon in of_kind(documents, "SeldonDeployment"):
        assert {one["graph"]["endpoint"]["service_port"] for one in seldon["spec"]["predictors"]} == {PORT}


@EVERY_BUILD
def test_routes_name_services_and_their_ports(overlay, components):
    documents = build(overlay, components)
    open_ports = {
        (service["metadata"]["name"], port["port"])
        for service in of_kind(documents, "Service")
        for port in service["spec"]["ports"]
        if not is_headless(service)
    }
    for route in of_kind(documents, "HTTPRoute"):
        backends = [backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]]
        assert {(backend["name"], backend["port"]) for backend in backends} == open_ports
        assert sum(backend["weight"] for backend in backends) == 100


@EVERY_BUILD
def test_the_pods_that_share_traffic_are_named_one_by_one_while_they_are_ready(overlay, components):
    services = of_kind(build(overlay, components), "Service")
    sharing = {str(one["spec"]["selector"]) for one in services if not is_headless(one)}
    naming = [one["spec"] for one in services if is_headless(one)]
    assert {str(spec["selector"]) for spec in naming} == sharing
    for spec in naming:
        assert "publishNotReadyAddresses" not in spec
        assert [port["port"] for port in spec["ports"]] == [PORT]


@EVERY_BUILD
def test_shares_of_traffic_add_up(overlay, components):
    for seldon in of_kind(build(overlay, components), "SeldonDeployment"):
        assert [predictor["traffic"] for predictor in seldon["spec"]["predictors"]] == [90, 10]


@pytest.mark.parametrize("component", ["canary", "canary-steps"])
def test_a_rollout_goes_back_at_once_to_pods_that_it_still_knows(component):
    (rollout,) = of_kind(build("production", component), "Rollout")
    assert 1 <= rollout["spec"]["rollbackWindow"]["revisions"] <= rollout["spec"]["revisionHistoryLimit"]


@EVERY_BUILD
def test_probes_ask_what_they_should(overlay, components):
    pages = gateway.Gateway(None, None, None, 1)._pages
    for container in containers(build(overlay, components)):
        asked = {
            kind: container[f"{kind}Probe"]["httpGet"]["path"]
            for kind in ("startup", "liveness", "readiness")
        }
        # A restart brings no registry back: only readiness asks for a model.
        assert asked == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        assert set(asked.values()) <= set(pages)


@EVERY_BUILD
def test_prometheus_asks_our_page(overlay, components):
    for monitor in of_kind(build(overlay, components), "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["path"] in gateway.Gateway(None, None, None, 1)._pages


def test_only_predictions_models_and_the_webhook_are_open_to_the_outside():
    (ingress,) = of_kind(build("production", "ingress"), "Ingress")
    (route,) = of_kind(build("production", "gateway"), "HTTPRoute")
    paths = [path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]]
    assert paths == [match["path"]["value"] for match in route["spec"]["rules"][0]["matches"]]
    ours = gateway.Gateway(None, None, None, 1)
    known = {*ours._predictions, *ours._pages, *ours._commands}
    assert {path for path in known if path.startswith("/v1/")} - set(paths) == {
        *("/v1/drift", "/v1/feedback", "/v1/quality")
    }
    assert "/invocations" in paths
    assert set(paths) <= known


def test_the_ingress_takes_bodies_as_large_as_the_service_does():
    (ingress,) = of_kind(build("production", "ingress"), "Ingress")
    allowed = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert allowed == f"{Settings.model_fields['max_body_mb'].default}m"


def policy_of_the_servers(documents):
    """What the base lets the servers' pods do."""
    (policy,) = [one for one in of_kind(documents, "NetworkPolicy") if one["spec"]["podSelector"]]
    return policy["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_registrys_port_is_open(overlay):
    documents = build(overlay)
    (uri,) = {environment_of(one, documents)["MLFLOW_TRACKING_URI"] for one in containers(documents)}
    policy = policy_of_the_servers(documents)
    assert urlsplit(uri).port in {port["port"] for rule in policy["egress"] for port in rule["ports"]}


def test_a_registry_in_the_cluster_is_open_to_plugins_that_tell_pods_by_labels_only():
    policy = policy_of_the_servers(build("production"))
    ports = [rule["ports"] for rule in policy["egress"] if {"namespaceSelector": {}} in rule.get("to", [])]
    assert [{port["port"] for port in one} for one in ports] == [{443, 5000}]


def test_the_gateway_sends_nothing_to_pods_that_may_not_be_there_yet():
    (route,) = of_kind(build("production", "gateway"), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert {one["name"]: one["weight"] for one in rule["backendRefs"]} == {
        "model-server": 100,
        "model-server-next": 0,
    }


def allows(rules: list[dict[str, Any]], address: str, port: int) -> bool:
    """Whether one of a policy's rules lets packets to an address and port through."""
    for rule in rules:
        ports = [one["port"] for one in rule["ports"]]
        for peer in rule.get("to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]):
            if "ipBlock" not in peer:
                continue  # pods, by their labels
            block = peer["ipBlock"]
            inside = [
                ip_address(address) in ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))
            ]
            if inside[0] and not any(inside[1:]) and port in ports:
                return True
    return False


@pytest.mark.parametrize(
    ("address", "port"), [("169.254.170.23", 80), ("169.254.169.254", 80), ("169.254.169.252", 988)]
)
def test_the_nodes_credentials_are_open_to_pods_with_an_identity_of_their_own_only(address, port):
    def is_open(*components):
        policies = of_kind(build("production", *components), "NetworkPolicy")
        return any(allows(policy["spec"].get("egress", []), address, port) for policy in policies)

    assert not is_open()
    assert is_open("cloud-identity")
    policies = of_kind(build("production", "cloud-identity"), "NetworkPolicy")
    assert not any(allows(policy["spec"].get("egress", []), "169.254.1.1", 80) for policy in policies)


def test_the_jobs_of_the_scripts_log_in_to_the_store_as_the_servers_do():
    documents = build("production", "scripts cloud-identity")
    (policy,) = [
        one["spec"]
        for one in of_kind(documents, "NetworkPolicy")
        if one["metadata"]["name"] == "model-server-cloud-identity"
    ]
    for labels, pod in all_pods(documents):
        assert policy_selects(policy, labels)
        assert labels["azure.workload.identity/use"] == "true"
        assert pod["serviceAccountName"] == "model-server"


def test_callers_of_labelled_namespaces_are_let_in():
    peers = [
        peer
        for policy in of_kind(build("production", "callers"), "NetworkPolicy")
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
    ]
    assert {"namespaceSelector": {"matchLabels": {"model-server-caller": "true"}}} in peers


@EVERY_BUILD
def test_what_is_kept_fits_on_the_volume_beside_what_is_prepared(overlay, components):
    documents = build(overlay, components)
    claims = of_kind(documents, "PersistentVolumeClaim")
    for _, pod in server_pods(documents):
        kept = float(environment_of(pod["containers"][0], documents)["SERVING_KEEP_MB"])
        sizes = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume]
        (models,) = (volume for volume in pod["volumes"] if volume["name"] == "models")
        if "emptyDir" in models:
            assert kept < megabytes(models["emptyDir"]["sizeLimit"]) / 2
        else:
            assert kept < megabytes(claims[0]["spec"]["resources"]["requests"]["storage"]) / 2
        limit = megabytes(pod["containers"][0]["resources"]["limits"]["ephemeral-storage"])
        assert sum(megabytes(size) for size in sizes) < limit


@EVERY_BUILD
def test_memory_is_enough_to_prepare_beside_the_worker(overlay, components):
    told = (ROOT / "docs" / "performance.md").read_text()
    at_rest, more = re.search(r"(\d+) MB at rest.*?takes (\d+) MB\s+more", told, re.DOTALL).groups()
    for container in containers(build(overlay, components)):
        limit = megabytes(container["resources"]["limits"]["memory"])
        assert limit > int(at_rest) + int(more)


@EVERY_BUILD
def test_a_promotion_does_not_look_like_traffic(overlay, components):
    """Preparing takes most of a pod's memory for seconds, and traffic takes none."""
    for scaler in of_kind(build(overlay, components), "HorizontalPodAutoscaler"):
        resources = [
            metric["resource"]["name"] for metric in scaler["spec"]["metrics"] if "resource" in metric
        ]
        assert resources == ["cpu"]


def seconds_to_start(container):
    probe = container["startupProbe"]
    return probe["periodSeconds"] * probe["failureThreshold"]


@EVERY_BUILD
def test_a_pod_that_starts_slowly_and_then_prepares_has_not_failed(overlay, components):
    documents = build(overlay, components)
    patience = Settings.model_fields["prepare_timeout_seconds"].default
    slowest = max(seconds_to_start(container) for container in containers(documents))
    for document in of_kind(documents, "Deployment", "Rollout"):
        assert document["spec"]["progressDeadlineSeconds"] > patience + slowest


@EVERY_BUILD
def test_pods_that_start_side_by_side_have_time(overlay, components):
    told = (ROOT / "docs" / "deploy.md").read_text()
    (seen,) = re.findall(r"took \d+ to (\d+) s", told)
    for container in containers(build(overlay, components)):
        assert seconds_to_start(container) >= 2 * int(seen)


@EVERY_BUILD
def test_the_pause_before_the_end_leaves_time_for_the_end(overlay, components):
    for _, pod in server_pods(build(overlay, components)):
        (container,) = pod["containers"]
        stop = container["lifecycle"]["preStop"]
        pause = (
            stop["sleep"]["seconds"] if "sleep" in stop else int(re.search(r"sleep\((\d+)\)", str(stop))[1])
        )
        end = sum(Settings.model_fields[f"{what}_seconds"].default for what in ("drain", "shutdown"))
        assert pause >= 5
        assert pause + end < pod["terminationGracePeriodSeconds"]


def test_sizes_are_those_of_the_page():
    told = (ROOT / "docs" / "deploy.md").read_text().replace("\n", " ")
    scalers = {overlay: of_kind(build(overlay), "HorizontalPodAutoscaler")[0]["spec"] for overlay in OVERLAYS}
    (target,) = {one["metrics"][0]["resource"]["target"]["averageUtilization"] for one in scalers.values()}
    least, most = (
        {overlay: one[f"{bound}Replicas"] for overlay, one in scalers.items()} for bound in ("min", "max")
    )
    assert (
        f"above {target} % of a processor, from {least['production']} up to {most['production']} in production and "
        f"from {least['staging']} up to {most['staging']} in staging"
    ) in told
    assert f"pods = requests per second at the peak / ({target / 100:g} " in told
    (resources,) = (one["resources"] for one in containers(build("production")))
    requests, limits = resources["requests"], resources["limits"]
    memory, most_memory = (one["memory"].removesuffix("Gi") for one in (requests, limits))
    assert (
        f"request {memory} GiB and {requests['cpu']} processor; the limits are {most_memory} GiB and {limits['cpu']} processors."
    ) in told


def exported():
    """The names under which our metrics are scraped, and their labels."""
    scores = [f"{metrics.SCORE}{end}" for end in ("_bucket", "_count", "_sum")]
    names = {*DRIFT_METRICS, *QUALITY_METRICS, *scores}
    labels = {*LABELS, "bin", "window", "champion_version", "metric"}
    modules = (metrics, swaps, log_metrics, feedback_metrics)
    for value in [value for module in modules for value in vars(module).values()]:
        if isinstance(value, MetricWrapperBase):
            (family,) = value.describe()
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
            names |= {family.name + end for end in ends}
            labels |= set(value._labelnames)
    return names, labels


def test_queries_ask_for_metrics_that_exist():
    names, _ = exported()
    asked = set().union(*(metrics_in(query) for query in all_queries()))
    assert asked - names == set()
    # The claim would hold of no queries, too.
    assert len(asked) > 8


def test_queries_ask_for_labels_that_exist():
    _, labels = exported()
    theirs = {"job", "instance", "namespace", "pod", "rollouts_pod_template_hash", "le"}
    assert set().union(*(labels_in(query) for query in all_queries())) - labels - theirs == set()


def test_errors_that_alert_are_all_of_ours_and_none_of_the_callers():
    asked = [found for query in all_queries() for found in re.findall(r'status=~"([^"]*)"', query)]
    assert len(asked) > 2
    assert set(asked) == {"5.."}
    for mistake, expected in ((errors.QueueFull("full"), True), (errors.InvalidInput("wrong"), False)):
        metrics.count_error(("alerts", "1", "champion"), mistake, mistake.status)
        (family,) = metrics.errors_total.collect()
        (status,) = {
            sample.labels["status"]
            for sample in family.samples
            if sample.labels["model_name"] == "alerts" and sample.labels["error_type"] == mistake.code
        }
        assert (re.fullmatch(asked[0], status) is not None) is expected


def test_the_label_that_tells_canaries_apart_is_scraped():
    (monitor,) = of_kind(build("production", "monitoring"), "ServiceMonitor")
    assert [name.replace("-", "_") for name in monitor["spec"]["podTargetLabels"]] == [
        "rollouts_pod_template_hash"
    ]


def test_rules_ask_for_the_job_that_the_scraping_names():
    documents = build("production", "monitoring")
    (monitor,) = of_kind(documents, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    # Of two Services with the same pods each pod would be scraped, and counted, twice.
    (service,) = [one for one in of_kind(documents, "Service") if wanted <= one["metadata"]["labels"].items()]
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    assert {name for rule in rules() for name in re.findall(r'job="([^"]*)"', rule["expr"])} == {job}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_keda_looks_at_its_own_namespace_only(overlay):
    (namespace,) = (document["metadata"]["name"] for document in of_kind(build(overlay), "Namespace"))
    for query in keda_queries(overlay):
        assert f'{{namespace="{namespace}"' in query


def test_the_autoscaler_asks_the_metric_that_the_adapter_makes():
    (scaler,) = of_kind(build("production", "requests-per-second"), "HorizontalPodAutoscaler")
    asked = [
        metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"
    ]
    assert [f"as: {name}" in ADAPTER.read_text() for name in asked] == [True]


def test_alerts_wait_longer_than_what_is_normal():
    waits = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    not_ready = seconds(waits["ModelServerNotReady"]["for"])
    assert not_ready > Settings.model_fields["prepare_timeout_seconds"].default
    silent = int(waits["ModelRegistrySilent"]["expr"].rpartition(">")[2])
    assert silent > 10 * Settings.model_fields["sync_seconds"].default
