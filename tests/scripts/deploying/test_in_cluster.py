"""`scripts/in_cluster.sh`: a real kubectl, and a double of the API that runs the Job's command on this machine."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.kubernetes.building import build, of_kind
from tests.kubernetes.validating import VERSIONS, problems
from tests.scripts.rollout.kube_api import write_kubeconfig
from tests.support.api_server import ApiHandler
from tests.support.doubles import Double
from tests.support.environment import ROOT, clean_environment, wait_until
from tests.support.fake_service import FakeService
from tests.support.promotions import NAME, Registry

SOURCES = "/home/bentoml/bento/src"
"""Of a Bento, in the image."""

PODS = "/api/v1/namespaces/model-server/pods"

RESOURCES = {
    "/api/v1": [("pods", "Pod"), ("pods/log", "Pod")],
    "/apis/batch/v1": [("cronjobs", "CronJob"), ("jobs", "Job")],
}


class Cluster(Double):
    """Has the component's CronJob, and runs Jobs."""

    def __init__(self, registry: str, folder: Path) -> None:
        super().__init__(_Handler)
        self.asked: set[tuple[str, str]] = set()
        """Method and path of each request."""
        (self.cronjob,) = of_kind(build("production", "scripts"), "CronJob")
        self.job: dict[str, Any] | None = None
        self.process: subprocess.Popen[str] | None = None
        self.is_pulling = False
        self.is_rejected = False
        self.n_outages = 0
        """Questions for pods that get no answer."""
        self._registry, self._folder = registry, folder

    def start(self, job: dict[str, Any]) -> dict[str, Any]:
        assert problems(job, VERSIONS[-1]) == []
        job["metadata"]["name"] = f"{job['metadata']['generateName']}x7k2p"
        self.job = job
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["python"]
        script, *options = container["args"]
        variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        options = [expand(option, variables) for option in options]
        if not (self.is_pulling or self.is_rejected):
            self.process = subprocess.Popen(
                [sys.executable, script.replace(SOURCES, str(ROOT)), *options],
                cwd=self._folder,
                env=clean_environment()
                | variables
                | {"MLFLOW_TRACKING_URI": self._registry, "SERVING_MODEL_NAME": NAME},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return job

    def pods(self) -> list[dict[str, Any]]:
        if self.job is None:
            return []
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "the-pod", "namespace": "model-server"},
        }
        if self.is_pulling:
            waiting = {"reason": "ImagePullBackOff", "message": "not found"}
            return [
                pod
                | {
                    "status": {
                        "phase": "Pending",
                        "containerStatuses": [{"name": "scripts", "state": {"waiting": waiting}}],
                    }
                }
            ]
        if self.is_rejected:
            return [
                pod
                | {"status": {"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough"}}
            ]
        assert self.process is not None
        code = self.process.poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
        sidecar = {"name": "istio-proxy", "state": {"running": {}}}
        phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
        return [
            pod
            | {"spec": {"containers": [{"name": "scripts"}]}}
            | {
                "status": {
                    "phase": phase,
                    "containerStatuses": [sidecar, {"name": "scripts", "state": state}],
                }
            }
        ]


def expand(argument: str, variables: dict[str, str]) -> str:
    """What the kubelet makes of an argument.

    Source: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """

    def replace(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\((\w+)\)", replace, argument)


class _Handler(ApiHandler):
    server: Cluster

    def log_request(self, *_: object) -> None:
        self.server.asked.add((self.command, urlsplit(self.path).path))

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path
        if self.discover(path, RESOURCES):
            return
        if path == "/apis/batch/v1/namespaces/model-server/cronjobs/model-server-scripts":
            self.say(self.server.cronjob)
        elif path == "/api/v1/namespaces/model-server/pods":
            assert self.server.job is not None
            name = self.server.job["metadata"]["name"]
            if self.server.n_outages:
                self.server.n_outages -= 1
                self.close_connection = True
                return
            assert parse_qs(parts.query)["labelSelector"] == [f"batch.kubernetes.io/job-name={name}"]
            self.say({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.server.pods()})
        elif path.endswith("/pods/the-pod"):
            self.say(self.server.pods()[0])
        elif path.endswith("/pods/the-pod/log"):
            assert self.server.process is not None
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            for line in self.server.process.stdout or ():
                self.wfile.write(line.encode())
                self.wfile.flush()
        else:
            self.refuse(f"{path.rpartition('/')[2]} not found")

    def do_POST(self) -> None:
        self.say(self.server.start(self.read()), 201)

    def do_DELETE(self) -> None:
        self.read()
        if self.server.process is not None:
            self.server.process.terminate()
        self.say({"kind": "Status", "apiVersion": "v1", "status": "Success"})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", 1.0, 0.1, 0.01)


@pytest.fixture
def cluster(registry: Registry, tmp_path: Path) -> Iterator[Cluster]:
    for tool in ("kubectl", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    with Cluster(registry.uri, tmp_path).running() as running:
        write_kubeconfig(tmp_path / "kubeconfig", running.url)
        yield running
        if running.process is not None:
            running.process.kill()
            running.process.communicate()


def command(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["scripts/in_cluster.sh", *arguments],
        cwd=ROOT,
        env=clean_environment()
        | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path), "GITHUB_ACTOR": "anna"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WHY = "trained on June; it's $(LOGNAME)'s, and $$5 cheaper"
"""With what Kubernetes would expand: a variable of the pod, which may be a password."""


def test_a_promotion_runs_in_the_cluster(cluster: Cluster, registry: Registry, tmp_path: Path):
    with FakeService(lambda: registry.aliases).running() as service:
        options = ["promote.py", "2", "--url", service.url, "--why", WHY]
        out, err = (running := command(tmp_path, "model-server", *options)).communicate(timeout=120)
    assert running.returncode == 0, err
    assert "went from version 1 to 2" in out
    assert err == "in_cluster.sh: job promote-x7k2p in the namespace model-server\n"
    assert registry.aliases["production"] == "2"
    (record,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(record)["why"] == WHY
    assert json.loads(record)["who"].startswith("anna@")


def test_its_exit_code_is_the_scripts_own(cluster: Cluster, tmp_path: Path):
    out, _ = (running := command(tmp_path, "model-server", "promote.py", "9")).communicate(timeout=120)
    assert (running.returncode, out) == (
        2,
        f"promote.py: model '{NAME}' has no version 9 (there are: 1, 2, 3)\n",
    )


def test_a_signal_puts_everything_back(cluster: Cluster, registry: Registry, tmp_path: Path):
    """Services that go on answering with version 1 keep the promotion waiting."""
    with FakeService(lambda: {"production": "1"}).running() as service:
        running = command(tmp_path, "model-server", "promote.py", "2", "--url", service.url)
        wait_until(lambda: registry.aliases["production"] == "2", 60, "the alias has moved")
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, registry.aliases["production"]) == (143, "1"), err
    assert f"{NAME}@production was rolled back to version 1" in out


def right_for(method: str, path: str) -> tuple[str, str, str] | None:
    """API group, resource and verb by which the API authorizes a request; None outside the namespace.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
    """
    found = re.fullmatch(
        r"/apis?/(?:(?P<group>\w+)/)?v1/namespaces/model-server/(?P<resource>\w+)(?P<name>/[\w-]+)?(?P<part>/\w+)?",
        path,
    )
    if found is None:
        return None
    reads = "get" if found["name"] else "list"
    verb = {"GET": reads, "POST": "create", "DELETE": "delete"}[method]
    return found["group"] or "", found["resource"] + (found["part"] or ""), verb


def test_the_role_has_the_rights_that_it_needs_and_no_others(cluster: Cluster, tmp_path: Path):
    with FakeService(lambda: {"production": "1"}).running() as service:
        running = command(tmp_path, "model-server", "promote.py", "2", "--url", service.url)
        wait_until(lambda: ("GET", f"{PODS}/the-pod/log") in cluster.asked, 60, "its log is followed")
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=120)
    (role,) = of_kind(build("production", "scripts"), "Role")
    given = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    used = {right for request in cluster.asked if (right := right_for(*request))}
    assert used <= given
    to_look_at_by_hand = {("batch", "jobs", "get"), ("", "pods", "get")}
    assert given - used <= to_look_at_by_hand
    assert of_kind(build("production", "scripts"), "RoleBinding", "ClusterRoleBinding") == []


def test_mistakes_are_told_in_one_line(cluster: Cluster, tmp_path: Path):
    def told(*arguments: str) -> str:
        _, err = (running := command(tmp_path, *arguments)).communicate(timeout=60)
        assert running.returncode == 2
        return err

    assert told() == "in_cluster.sh: expected a namespace and a script, such as: model-server history.py\n"
    assert "unknown script train.py: expected promote.py" in told("model-server", "train.py")
    assert re.search(
        r"NotFound.*\nin_cluster.sh: cannot read the cronjob model-server-scripts in the namespace elsewhere; if",
        told("elsewhere", "history.py"),
    )


@pytest.mark.parametrize("script", ["in_cluster.sh", "with_service.sh"])
def test_help_is_the_comment_at_the_top(script: str):
    done = subprocess.run(
        [f"scripts/{script}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n\n  scripts/{script} model-server " in done.stdout
    lines = (ROOT / "scripts" / script).read_text().splitlines()
    comment = lines[1 : lines.index("set -euo pipefail")]
    assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in comment]


def test_a_job_that_does_not_start_says_why(cluster: Cluster, tmp_path: Path):
    cluster.is_pulling = True
    running = command(tmp_path, "model-server", "history.py")
    wait_until(lambda: cluster.job is not None, 60, "the Job is there")
    _, err = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "the pod of history-x7k2p does not start: ImagePullBackOff: not found" in err


def test_a_pod_that_the_node_rejects_ends_it(cluster: Cluster, tmp_path: Path):
    cluster.is_rejected = True
    _, err = (running := command(tmp_path, "model-server", "history.py")).communicate(timeout=60)
    assert running.returncode == 2
    assert "the node rejected the pod of history-x7k2p: OutOfcpu: Node didn't have enough" in err


def test_a_cluster_that_does_not_answer_for_a_moment_is_asked_again(cluster: Cluster, tmp_path: Path):
    cluster.n_outages = 2
    running = command(tmp_path, "model-server", "promote.py", "9")
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, "has no version 9" in out) == (2, True)


def test_the_job_has_the_servers_image_and_settings_and_none_of_their_requests():
    documents = build("production", "scripts")
    (cronjob,) = of_kind(documents, "CronJob")
    (deployment,) = of_kind(documents, "Deployment")
    job, servers = cronjob["spec"]["jobTemplate"]["spec"]["template"], deployment["spec"]["template"]
    ours, theirs = job["spec"]["containers"][0], servers["spec"]["containers"][0]
    assert ours["image"] == theirs["image"]
    assert ours["envFrom"] == theirs["envFrom"]
    assert job["spec"]["serviceAccountName"] == servers["spec"]["serviceAccountName"]
    for service in of_kind(documents, "Service"):
        assert not service["spec"]["selector"].items() <= job["metadata"]["labels"].items()
    assert cronjob["spec"]["suspend"] is True
