"""What keeps `scripts/canary.py` from doing harm: other hands, lost answers, killed runs and slow controllers."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from scripts import canary
from scripts.rollout import deployments, progression
from tests.scripts.rollout.kinds import KINDS
from tests.scripts.rollout.kube_api import KubeApi, make_ready
from tests.scripts.rollout.runs import Run, of, restoring, told
from tests.support.environment import ROOT, wait_until

ROUTE, SELDON, DEPLOYMENT, ROLLOUT = KINDS


class Killed(BaseException):
    """The process has ended: nothing is put back."""


@contextlib.contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, percent: int) -> Iterator[None]:
    """Ends a run when it judges this step."""

    def judge(*arguments: Any) -> Any:
        if arguments[-1].percent == percent:
            raise Killed
        return original(*arguments)

    original = progression.judge
    with monkeypatch.context() as patch:
        patch.setattr(progression.Canary, "_put_back", lambda *_: False)
        patch.setattr(progression, "judge", judge)
        with pytest.raises(Killed):
            yield


def pods(cluster: KubeApi) -> tuple[int, int]:
    """Of the stable Deployment and the canary."""
    names = ("model-server", "model-server-canary")
    stable, other = (cluster.objects[f"deployments/{name}"]["spec"]["replicas"] for name in names)
    return stable, other


# Runs that were killed


@of(*KINDS)
def test_a_run_that_was_killed_in_its_last_step_is_not_taken_for_finished(run: Run, monkeypatch, capsys):
    with killed_at(monkeypatch, 100):
        canary.main(run.arguments)
    run.canary.failing = 0.5
    assert canary.main(run.arguments) == 1
    assert "requests of the canary fail" in capsys.readouterr().out
    assert run.percent == 0


@of(ROLLOUT)
def test_a_rollout_that_was_killed_at_its_end_is_finished(run: Run, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(progression.Canary, "_put_back", lambda *_: False)

        def die(*_: object) -> None:
            raise Killed

        patch.setattr("scripts.rollout.argo.Rollout.finish", die)
        canary.main(run.arguments)
    assert run.document["status"]["stableRS"] == "7c9d8f"
    assert canary.main(run.arguments) == 0
    assert run.document["status"]["stableRS"] == "5b6f4d"


@of(DEPLOYMENT)
def test_a_run_that_was_killed_before_it_emptied_the_stable_side_remembers_what_there_was(
    run: Run, monkeypatch, capsys
):
    def die(_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(progression.Canary, "_put_back", lambda *_: False)
        patch.setattr(deployments.Deployments, "_empty_stable", die)
        canary.main([*run.arguments, "--steps", "50,100"])
    assert pods(run.cluster) == (4, 4)
    run.canary.failing = 0.5
    assert canary.main([*run.arguments, "--steps", "50,100"]) == 1
    assert pods(run.cluster) == (4, 0)


@of(ROUTE, SELDON)
def test_the_sides_are_those_of_the_run_before_whatever_is_said_now(run: Run, monkeypatch, capsys):
    first = {"httproute": "model-server", "seldondeployment": "main"}[run.kind.name]
    run.arguments.extend(["--canary", first])
    swap(run)
    with killed_at(monkeypatch, 25):
        canary.main(run.arguments)
    capsys.readouterr()
    without = run.arguments[:-2]
    assert canary.main(restoring(run._replace(arguments=without))) == 0
    assert weights(run) == [0, 100]


def swap(run: Run) -> None:
    """The first one is the canary."""
    run.cluster.change(run.document, lambda _: set_weights(run, 0, 100))
    stable, new = run.prometheus._sides
    run.prometheus._sides = {stable: run.canary, new: run.stable}


def set_weights(run: Run, *new: int) -> None:
    if run.kind.name == "httproute":
        for backend, weight in zip(run.document["spec"]["rules"][0]["backendRefs"], new, strict=False):
            backend["weight"] = weight
    else:
        for predictor, weight in zip(run.document["spec"]["predictors"], new, strict=False):
            predictor["traffic"] = weight


def weights(run: Run) -> list[int]:
    if run.kind.name == "httproute":
        return [backend["weight"] for backend in run.document["spec"]["rules"][0]["backendRefs"]]
    return [predictor["traffic"] for predictor in run.document["spec"]["predictors"]]


@of(ROUTE)
def test_another_canary_than_the_run_before_is_refused(run: Run, monkeypatch, capsys):
    with killed_at(monkeypatch, 25):
        canary.main(run.arguments)
    capsys.readouterr()
    said = told(capsys, *run.arguments, "--canary", "model-server")
    assert "an earlier run has left model-server-next at 25 %; --restore rolls it back" in said


@of(ROUTE)
def test_a_run_that_cannot_go_on_says_that_the_canary_has_traffic(run: Run, monkeypatch, capsys):
    with killed_at(monkeypatch, 25):
        canary.main(run.arguments)
    capsys.readouterr()
    run.prometheus.is_dead = True
    said = told(capsys, *run.arguments)
    assert "an earlier run left traffic on the canary; --restore rolls it back" in said


# Other hands


@of(*KINDS)
def test_nothing_is_written_over_what_somebody_else_has_written_meanwhile(run: Run):
    """Each of our patches comes after a change that we have not read: it is refused, and made anew."""
    seen: set[int] = set()

    def touch(document: dict[str, Any]) -> None:
        if (n := len(run.cluster.patches)) not in seen:
            seen.add(n)
            labels = document["metadata"].setdefault("labels", {})
            run.cluster.change(document, lambda _: labels.update({f"theirs-{n}": "1"}))

    run.cluster.on_patch = touch
    assert canary.main([*run.arguments, *([] if run.kind is KINDS[3] else ["--steps", "50,100"])]) == 0
    assert run.cluster.refusals.count(409) == len(seen) >= 3
    assert run.percent == 100


def strip(run: Run) -> None:
    """Somebody writes the whole object, without our note."""
    run.cluster.change(run.document, lambda one: one["metadata"]["annotations"].pop("model-server/canary"))


@of(ROUTE, SELDON)
def test_weights_that_are_ours_go_back_also_without_the_note(run: Run, monkeypatch, capsys):
    def judge(*_: Any) -> Any:
        strip(run)
        return progression.Verdict("break off", "it is bad")

    monkeypatch.setattr(progression, "judge", judge)
    assert canary.main(run.arguments) == 1
    assert run.percent == 0


@of(ROUTE, SELDON)
def test_weights_that_somebody_else_sets_while_it_is_judged_are_left_alone(run: Run, monkeypatch, capsys):
    def judge(*_: Any) -> Any:
        run.cluster.change(run.document, lambda _: set_weights(run, 40, 60))
        return progression.Verdict("break off", "it is bad")

    monkeypatch.setattr(progression, "judge", judge)
    assert canary.main(run.arguments) == 1
    assert "somebody else has set the weights to 40 and 60" in capsys.readouterr().err
    assert weights(run) == [40, 60]


@of(ROUTE)
def test_a_step_is_not_made_over_weights_of_somebody_else(run: Run, monkeypatch, capsys):
    def judge(*_: Any) -> Any:
        run.cluster.change(run.document, lambda _: set_weights(run, 40, 60))
        return progression.Verdict("go on")

    monkeypatch.setattr(progression, "judge", judge)
    assert canary.main([*run.arguments, "--step-seconds", "0.05"]) == 1
    assert weights(run) == [40, 60]


@of(DEPLOYMENT)
def test_a_step_of_pods_is_not_made_in_somebody_elses_run(run: Run, monkeypatch, capsys):
    def judge(*_: Any) -> Any:
        note = json.loads(run.document["metadata"]["annotations"]["model-server/canary"]) | {"run": "theirs"}
        run.cluster.change(
            run.document,
            lambda one: one["metadata"]["annotations"].update({"model-server/canary": json.dumps(note)}),
        )
        return progression.Verdict(next(verdicts))

    for kinds in (("go on",), ("break off",)):
        verdicts = iter(kinds)
        monkeypatch.setattr(progression, "judge", judge)
        assert canary.main([*run.arguments, "--step-seconds", "0.05"]) == 1
        assert "another canary has taken it over" in capsys.readouterr().err
        assert pods(run.cluster)[1] > 0
        left = json.loads(run.document["metadata"]["annotations"]["model-server/canary"])
        assert (left["run"], left["percent"]) == ("theirs", 5)


@of(ROUTE, SELDON)
def test_what_somebody_has_set_since_is_not_put_back_by_hand(run: Run, capsys):
    assert canary.main([*run.arguments, "--steps", "100"]) == 0
    run.cluster.change(run.document, lambda _: set_weights(run, 50, 50))
    assert canary.main(restoring(run)) == 1
    assert "somebody else has set the weights to 50 and 50" in capsys.readouterr().err
    assert weights(run) == [50, 50]


@of(ROUTE)
def test_a_backend_that_came_since_is_left_alone(run: Run, capsys):
    assert canary.main([*run.arguments, "--steps", "100"]) == 0
    backends = run.document["spec"]["rules"][0]["backendRefs"]
    run.cluster.change(run.document, lambda _: backends.append(backends[0] | {"name": "third", "weight": 0}))
    assert canary.main(restoring(run)) == 0
    assert weights(run) == [1, 0, 0]


@of(ROLLOUT)
@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda one: one["spec"].update(paused=True), "somebody else has paused it"),
        (lambda one: one["status"].update(currentPodHash="third"), "somebody else has changed its pods"),
        (lambda one: one["status"].update(stableRS="5b6f4d"), "somebody else has taken it to step"),
    ],
    ids=["paused", "other pods", "promoted"],
)
def test_a_rollout_in_other_hands_is_left_alone(run: Run, capsys, edit, part, at_first_look):
    at_first_look(lambda: run.cluster.change(run.document, edit))
    assert canary.main([*run.arguments, "--step-seconds", "10"]) == 1
    assert part in capsys.readouterr().err
    assert "abort" not in run.document["status"]


# Lost answers


@of(*KINDS)
def test_a_cluster_that_is_busy_when_a_step_is_to_be_made_is_asked_again(run: Run, monkeypatch):
    def judge(*_: Any) -> Any:
        run.cluster.busy = 2
        return progression.Verdict("go on")

    monkeypatch.setattr(progression, "judge", judge)
    steps = [] if run.kind is KINDS[3] else ["--steps", "50,100"]
    assert canary.main([*run.arguments, *steps, "--step-seconds", "0.05"]) == 0
    assert run.cluster.refusals.count(429) == 2 * (5 if run.kind is KINDS[3] else 2)


@of(*KINDS)
@pytest.mark.parametrize("garbage", [b"\xff\xfe{", b"{}", b"[]", b'{"kind": "Status"}'])
def test_answers_that_are_none_are_a_cluster_that_is_away(run: Run, capsys, garbage, at_first_look):
    def talk_nonsense() -> None:
        run.cluster.garbage = garbage
        run.clock.after(0.9, lambda: setattr(run.cluster, "garbage", None))

    at_first_look(talk_nonsense)
    assert canary.main([*run.arguments, "--step-seconds", "10"]) == 1
    assert "gave no valid answer" in capsys.readouterr().out
    assert run.percent == 0


@of(*KINDS)
@pytest.mark.parametrize("percent", [5, 100])
def test_a_change_whose_answer_is_lost_is_found_to_be_made(run: Run, monkeypatch, percent):
    """A patch after the first step, and the last: by the time it is looked at again, its controller has seen it."""

    def lose(*arguments: Any) -> Any:
        run.cluster.loses_answer = arguments[-1].percent == percent
        return progression.Verdict("go on")

    monkeypatch.setattr("scripts.rollout.target.POLL_SECONDS", 0.5)
    monkeypatch.setattr(progression, "judge", lose)
    assert canary.main([*run.arguments, "--step-seconds", "0.05"]) == 0
    assert not run.cluster.loses_answer
    assert run.percent == 100


@of(ROUTE)
def test_a_cluster_that_hangs_is_given_up(run: Run, capsys, monkeypatch):
    monkeypatch.setattr("scripts.rollout.cluster.REQUEST_SECONDS", 0.1)
    monkeypatch.setattr("scripts.rollout.target.POLL_SECONDS", 0.5)
    over = threading.Event()
    run.cluster.on_patch = lambda _: over.wait(6)
    began = time.monotonic()
    try:
        assert canary.main(run.arguments) in {1, 2}
        assert time.monotonic() - began < 15
    finally:
        over.set()


@of(ROUTE)
@pytest.mark.parametrize("who", ["prometheus", "cluster"])
def test_who_is_away_for_less_than_that_is_waited_for(run: Run, monkeypatch, at_first_look, who):
    monkeypatch.setattr(progression, "LOST_SECONDS", 5)
    server = getattr(run, who)

    def leave() -> None:
        server.is_dead = True
        run.clock.after(1, lambda: setattr(server, "is_dead", False))

    at_first_look(leave)
    assert canary.main([*run.arguments, "--steps", "50,100", "--step-seconds", "1"]) == 0


# Signals


@of(*KINDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_it_back(run: Run, capsys, at_first_look, number):
    seen: list[float] = []

    def send() -> None:
        seen.append(run.percent)
        signal.raise_signal(number)

    at_first_look(send)
    assert canary.main([*run.arguments, "--step-seconds", "15", "--json"]) == 128 + number
    said = capsys.readouterr()
    assert seen[0] > 0
    assert run.percent == 0
    assert said.err.startswith("canary.py: interrupted; ")
    assert said.err.count("\n") == 1
    assert json.loads(said.out)["done"] is False


@of(ROUTE)
def test_a_signal_to_the_process_of_the_script_puts_it_back(run: Run, kubeconfig):
    command = [sys.executable, str(ROOT / "scripts" / "canary.py"), *run.arguments, "--step-seconds", "15"]
    with (
        run.clock.in_real_time(),
        subprocess.Popen(
            [*command, "--json"],
            env=os.environ | {"KUBECONFIG": str(kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            wait_until(lambda: run.percent > 0 and run.cluster.n_requests > 2, 30, "it is watched")
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 143
    assert run.percent == 0
    assert err.startswith("canary.py: interrupted; ")
    assert err.count("\n") == 1
    assert json.loads(out)["done"] is False


@of(ROUTE)
def test_signals_after_the_first_do_not_disturb_the_putting_back(run: Run, at_first_look):
    sent: list[int] = []

    def send(number: int) -> None:
        assert run.percent > 0
        sent.append(number)
        signal.raise_signal(number)

    def break_off() -> None:
        run.cluster.is_dead = True
        for n, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), 1):
            run.clock.after(0.1 * n, functools.partial(send, number))
        run.clock.after(0.5, lambda: setattr(run.cluster, "is_dead", False))
        signal.raise_signal(signal.SIGINT)

    at_first_look(break_off)
    assert canary.main([*run.arguments, "--step-seconds", "15"]) == 130
    assert len(sent) == 3
    assert run.percent == 0


@of(ROUTE)
def test_a_signal_does_not_disturb_a_putting_back_that_has_begun(run: Run, capsys):
    def send(_: Any) -> None:
        """While the script waits for the answer."""
        if run.cluster.patches:
            sent.append(signal.SIGTERM)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    sent: list[int] = []
    run.cluster.on_patch = send
    run.canary.failing = 0.5
    assert canary.main(run.arguments) == 1
    assert sent == [signal.SIGTERM]
    assert "weights are as before" in capsys.readouterr().out
    assert run.percent == 0


# What is judged


@of(ROUTE)
def test_a_canary_that_answers_nothing_is_not_waited_for(run: Run, capsys):
    run.canary.answer = lambda _: None
    began = run.clock.monotonic()
    assert canary.main([*run.arguments, "--steps", "50,100"]) == 1
    assert "the canary has answered 0 requests, and should have" in capsys.readouterr().out
    assert run.clock.monotonic() - began < 10


@of(ROUTE)
def test_a_canary_that_begins_anew_is_put_back(run: Run, capsys, at_first_look):
    at_first_look(lambda: run.clock.after(1, run.canary.begin_anew))
    assert canary.main([*run.arguments, "--steps", "50,100", "--step-seconds", "3"]) == 1
    assert "a process of the canary restarted" in capsys.readouterr().out


# Pods


@of(DEPLOYMENT)
def test_a_step_waits_for_the_pods_of_the_canary(run: Run, capsys):
    run.cluster.controllers.clear()
    assert canary.main(run.arguments) == 1
    assert "model-server-canary has 0 of 1 pods ready after 2 s" in capsys.readouterr().out
    assert pods(run.cluster) == (4, 0)


@of(DEPLOYMENT)
@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 0},
        {"replicas": 2, "updatedReplicas": 0},
    ],
    ids=["unseen", "of an older template"],
)
def test_pods_that_are_not_the_ones_asked_for_do_not_count(run: Run, capsys, status):
    def control(document: dict[str, Any]) -> None:
        make_ready(document)
        if document["metadata"]["name"] == "model-server-canary":
            document["status"] |= status

    run.cluster.controllers[:] = [control]
    assert canary.main(run.arguments) == 1
    assert "pods ready after 2 s" in capsys.readouterr().out


@of(DEPLOYMENT)
def test_pods_that_are_given_up_are_told_at_once(run: Run, capsys, monkeypatch):
    monkeypatch.setattr(deployments, "READY_SECONDS", 60)

    def control(document: dict[str, Any]) -> None:
        make_ready(document)
        if document["metadata"]["name"] == "model-server-canary" and document["status"]["replicas"]:
            condition = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
            document["status"] |= {"readyReplicas": 0, "conditions": [condition]}

    run.cluster.controllers[:] = [control]
    assert canary.main(run.arguments) == 1
    assert "model-server-canary: timed out" in capsys.readouterr().out


@of(DEPLOYMENT)
def test_stable_pods_that_its_autoscaler_has_added_come_back(run: Run):
    assert canary.main([*run.arguments, "--steps", "100"]) == 0
    run.cluster.change(
        run.cluster.objects["deployments/model-server-canary"], lambda one: one["spec"].update(replicas=9)
    )
    assert canary.main(restoring(run)) == 0
    assert pods(run.cluster) == (9, 0)


@of(DEPLOYMENT)
def test_no_pod_of_the_canary_goes_before_the_stable_ones_are_there(run: Run):
    assert canary.main([*run.arguments, "--steps", "100"]) == 0
    seen = []
    run.cluster.on_patch = lambda one: seen.append(
        (one["metadata"]["name"], run.document["status"].get("readyReplicas"))
    )
    assert canary.main(restoring(run)) == 0
    assert [ready for name, ready in seen if name == "model-server-canary"] == [4]


@of(DEPLOYMENT)
@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda run: run.cluster.objects.pop("services/model-server"), "no Service selects the pods of both"),
        (
            lambda run: run.cluster.objects["services/model-server"]["spec"]["selector"].update(
                {"app.kubernetes.io/instance": "main"}
            ),
            "no Service selects the pods of both",
        ),
        (
            lambda run: run.cluster.objects["horizontalpodautoscalers/model-server"]["spec"][
                "scaleTargetRef"
            ].update(name="model-server-canary"),
            "the autoscaler model-server sets the pods of model-server-canary, too",
        ),
        (lambda run: run.arguments.extend(["--steps", "90,100"]), "steps before the last are at most 75 %"),
    ],
)
def test_pods_that_are_no_weights_are_refused(run: Run, capsys, edit, part):
    edit(run)
    assert part in told(capsys, *run.arguments)
    assert run.cluster.patches == []


# Rollouts


@of(ROLLOUT)
@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda one: one["status"].update(stableRS=""), "has no stable pods yet"),
        (lambda one: one["metadata"].update(generation=7), "the controller has not seen its change"),
    ],
    ids=["first", "unseen"],
)
def test_a_rollout_that_is_not_ready_for_it_is_refused(run: Run, capsys, edit, part):
    with run.cluster.lock:
        edit(run.document)  # and its controller does not look
    assert part in told(capsys, *run.arguments)
    assert run.cluster.patches == []


@of(ROLLOUT)
def test_an_abort_is_told_as_done_only_when_no_new_pod_is_left(run: Run, capsys):
    controller = run.cluster.controllers[-1]

    def keep_pods(document: dict[str, Any]) -> None:
        controller(document)
        if document["status"].get("abort"):
            document["status"]["updatedReplicas"] = 1

    run.cluster.controllers[:] = [keep_pods, controller][:1]
    run.canary.failing = 0.5
    run.cluster.controllers.append(
        type("W", (), {"weights": controller.weights, "__call__": lambda *_: None})()
    )
    assert canary.main(run.arguments) == 1
    assert "1 new pods still answer, and traffic is moving" in capsys.readouterr().out


@of(ROLLOUT)
def test_a_rollout_that_somebody_takes_further_meanwhile_is_left_alone(run: Run, capsys):
    """While it is waited for a step's pause; there is no waiting for one that is behind it."""
    controller = run.cluster.controllers[-1]

    def promote(document: dict[str, Any]) -> None:
        controller(document)
        if document["status"]["currentStepIndex"] == 3:
            document["status"].pop("pauseConditions")
            controller(document)

    promote.weights = controller.weights
    run.cluster.controllers[:] = [promote]
    began = run.clock.monotonic()
    assert canary.main(run.arguments) == 1
    assert "somebody else has taken it to step 5" in capsys.readouterr().err
    assert run.clock.monotonic() - began < 10
    assert "abort" not in run.document["status"]
