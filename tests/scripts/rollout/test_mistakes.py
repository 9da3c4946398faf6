"""What `scripts/canary.py` says where it cannot do anything: one line, and nothing is moved."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import canary
from tests.scripts.rollout.kinds import (
    KINDS,
    NAMESPACE,
    add_deployments,
    add_rollout,
    add_route,
    add_seldon,
)
from tests.scripts.rollout.kube_api import KubeApi, write_kubeconfig
from tests.scripts.rollout.runs import Run, of, restoring, told
from tests.support.environment import free_port

ROUTE, SELDON, DEPLOYMENT, ROLLOUT = KINDS


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["httproute", "x"], "--namespace"),
        (["ingress", "x", "--namespace", "a"], "invalid choice: 'ingress'"),
        (["httproute", "x", "--namespace", "a"], "--prometheus is needed"),
        (
            ["httproute", "x", "--namespace", "a", "--prometheus", "prometheus:9090"],
            "is not the URL of a server",
        ),
        (["--steps", "5,10"], "is not a list of rising whole percents up to 100, such as 5,10,25,50,100"),
        (["--steps", "50,10,100"], "is not a list of rising whole percents"),
        (["--steps", "0,100"], "is not a list of rising whole percents"),
        (["--steps", "2.5,100"], "is not a list of rising whole percents"),
        (["--step-seconds", "-1"], "'-1' is not a number above 0"),
        (["--step-seconds", "nan"], "'nan' is not a number above 0"),
        (["--max-step-seconds", "10"], "--max-step-seconds is less than --step-seconds"),
        (["--min-requests", "0"], "--min-requests and --min-rows are at least 1"),
    ],
)
def test_a_wrong_command_line(capsys, arguments, part):
    if arguments[0].startswith("--"):
        arguments = ["httproute", "x", "--namespace", "a", "--prometheus", "http://127.0.0.1:1", *arguments]
    assert part in told(capsys, *arguments)


def given(name: str, *more: str) -> list[str]:
    return [*name.split(), "--namespace", NAMESPACE, "--prometheus", f"http://127.0.0.1:{free_port()}", *more]


def timed(document):
    document["spec"]["strategy"]["canary"]["steps"][1]["pause"] = {"duration": "5m"}


def aborted(document):
    document["status"]["abort"] = True


def unseen(document):
    document["status"]["workloadObservedGeneration"] = "0"


def analysed(document):
    document["spec"]["strategy"]["canary"]["steps"].insert(2, {"analysis": {"templates": []}})


def stepless(document):
    document["spec"]["strategy"]["canary"]["steps"] = []


def alone(document):
    del document["spec"]["rules"][0]["backendRefs"][1]


def third(document):
    backends = document["spec"]["rules"][0]["backendRefs"]
    backends.append(backends[1] | {"name": "other"})


def uneven(document):
    rules = document["spec"]["rules"]
    stable, other = rules[0]["backendRefs"]
    rules.append({"backendRefs": [stable | {"weight": 3}, other | {"weight": 2}]})


def empty(document):
    document["spec"]["replicas"] = 0


def unchanged(_):
    pass


@pytest.mark.parametrize(
    ("add", "edit", "arguments", "part"),
    [
        (add_route, unchanged, given("httproute nobody"), '404 httproutes.gateway.networking.k8s.io "nobody" not found'),
        (add_route, unchanged, given("httproute model-server-gateway --canary other"), "has no other; there are: model-server, model-server-next"),
        (add_route, alone, given("httproute model-server-gateway"), "must split traffic between two; it has: none"),
        (add_route, third, given("httproute model-server-gateway"), "it has: model-server, model-server-next, other"),
        (add_route, uneven, given("httproute model-server-gateway"), "its rules have different weights"),
        (add_route, unchanged, given("httproute model-server-gateway"), "gave no valid answer: Connection refused"),
        (add_seldon, unchanged, given("seldondeployment model-server --canary second"), "has no second; there are: main, canary"),
        (add_deployments, unchanged, given("deployment model-server --canary other"), 'deployments.apps "other" not found'),
        (add_deployments, unchanged, given("deployment model-server --canary model-server"), "select the same pods"),
        (add_deployments, empty, given("deployment model-server"), "has no pods"),
        (add_rollout, timed, given("rollout model-server"), "continues by itself after step 1"),
        (add_rollout, analysed, given("rollout model-server"), "its step 2 must be setWeight or pause, not analysis"),
        (add_rollout, stepless, given("rollout model-server"), "needs rising steps, each with a pause"),
        (add_rollout, aborted, given("rollout model-server"), "was aborted, and waits for a change"),
        (add_rollout, unseen, given("rollout model-server"), "the controller has not seen its change after 2 s"),
        (add_rollout, unchanged, given("rollout model-server --steps 50,100"), "has its own steps: leave --steps out"),
        (add_rollout, unchanged, given("rollout model-server --canary x"), "leave --canary out"),
    ],
)  # fmt: skip
def test_an_object_that_is_not_as_it_must_be(cluster: KubeApi, capsys, add, edit, arguments, part):
    document = add(cluster)
    cluster.change(document, edit)
    assert part in told(capsys, *arguments)
    assert cluster.patches == []


@of(ROUTE)
def test_a_side_that_is_not_scraped_is_told_before_anything_is_moved(run: Run, capsys):
    metrics = ["--canary-metrics", 'service="model-server-next",env="x"']
    run.canary.pod.lines = {}
    run.stable.pod.lines = {}
    run.canary.answer = run.stable.answer = lambda _: None
    run.stable.pod.lines = {}
    said = told(capsys, *run.arguments, *metrics)
    assert "it does not scrape the stable pods" in said
    assert run.cluster.patches == []


@of(ROUTE)
@pytest.mark.parametrize(
    ("break_it", "part"),
    [
        (lambda run, file: write_kubeconfig(file, run.cluster.url, "another"), "401 Unauthorized"),
        (lambda run, _: run.cluster.forbidden.add("GET"), '403 /apis/gateway.networking.k8s.io/v1/namespaces/model-server/httproutes/model-server-gateway is forbidden: User "deployer" cannot get it'),
        (lambda run, _: run.cluster.forbidden.add("PATCH"), 'User "deployer" cannot patch it'),
        (lambda run, file: write_kubeconfig(file, f"http://127.0.0.1:{free_port()}"), "does not answer: Connection refused"),
        (lambda run, file: write_kubeconfig(file, f"http://{run.canary.pod.start()}"), "gave no valid answer"),
        (lambda run, file: file.write_text("{"), "no cluster is configured: "),
        (lambda run, file: file.unlink(), "no cluster is configured: "),
    ],
    ids=["token", "reading", "writing", "nobody", "somebody", "broken", "none"],
)  # fmt: skip
def test_a_cluster_that_refuses(run: Run, tmp_path, capsys, break_it: Callable[[Run, Path], None], part):
    break_it(run, tmp_path / "kubeconfig")
    assert canary.main(run.arguments) == 2
    said = capsys.readouterr()
    assert part in said.err
    assert said.err.count("\n") == 1
    assert "the-token" not in said.err
    assert run.cluster.patches == []


@of(ROUTE)
def test_a_context_that_is_not_there(run: Run, capsys):
    assert "no cluster is configured" in told(capsys, *run.arguments, "--context", "elsewhere")


@of(ROUTE)
def test_a_dry_run_without_a_cluster_says_what_it_needs_one_for(run: Run, tmp_path, capsys):
    (tmp_path / "kubeconfig").unlink()
    line = told(capsys, *run.arguments, "--dry-run")
    assert "no cluster is configured: " in line
    assert line.endswith("; --dry-run changes nothing, but reads its plan from the cluster")


@of(ROUTE)
def test_weights_that_a_canary_had_before_are_where_it_goes_back_to(run: Run, capsys):
    backends = run.document["spec"]["rules"][0]["backendRefs"]
    run.cluster.change(run.document, lambda _: (backends[0].update(weight=9), backends[1].update(weight=1)))
    run.canary.failing = 0.2
    assert canary.main(run.arguments) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith(f"HTTPRoute {NAMESPACE}/model-server-gateway: 10 %, 25 %")
    assert "weights are as before: model-server 9, model-server-next 1" in said
    assert [one["weight"] for one in run.document["spec"]["rules"][0]["backendRefs"]] == [9, 1]
    assert "model-server/canary" not in run.document["metadata"]["annotations"]


@of(ROUTE)
def test_weights_that_were_set_after_the_last_run_are_a_new_beginning(run: Run):
    assert canary.main([*run.arguments, "--steps", "100"]) == 0
    backends = run.document["spec"]["rules"][0]["backendRefs"]
    run.cluster.change(run.document, lambda _: (backends[0].update(weight=1), backends[1].update(weight=0)))
    run.canary.failing = 0.2
    assert canary.main([*run.arguments, "--steps", "50,100"]) == 1
    assert [one["weight"] for one in run.document["spec"]["rules"][0]["backendRefs"]] == [1, 0]


@of(ROLLOUT)
def test_pods_that_do_not_get_ready_end_it(run: Run, capsys):
    run.cluster.controllers[-1].is_degrading = True
    assert canary.main(run.arguments) == 1
    assert "is degraded: ProgressDeadlineExceeded" in capsys.readouterr().out
    assert run.document["status"]["abort"] is True


@of(ROLLOUT)
def test_an_analysis_that_aborts_it_ends_it(run: Run, capsys, at_first_look):

    def abort() -> None:
        run.cluster.change(run.document, lambda one: one["status"].update(abort=True))

    at_first_look(abort)
    assert canary.main([*run.arguments, "--step-seconds", "10"]) == 1
    assert "was aborted: " in capsys.readouterr().out
    assert run.percent == 0


@of(DEPLOYMENT)
def test_stable_pods_that_do_not_come_back_keep_the_canary(run: Run, capsys):
    def pods(name: str) -> int:
        return run.cluster.objects[f"deployments/{name}"]["spec"]["replicas"]

    assert canary.main([*run.arguments, "--steps", "100"]) == 0
    controllers = list(run.cluster.controllers)
    run.cluster.controllers.clear()
    capsys.readouterr()
    for _ in range(2):  # the second finds them scaled up already
        assert canary.main(restoring(run)) == 1
        assert "model-server has 0 of 4 pods ready" in capsys.readouterr().err
        assert pods("model-server-canary") == 4
    run.cluster.controllers.extend(controllers)
    run.cluster.change(run.document, lambda _: None)
    assert canary.main(restoring(run)) == 0
    assert (pods("model-server"), pods("model-server-canary")) == (4, 0)
