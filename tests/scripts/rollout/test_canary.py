"""`scripts/canary.py` on each kind, with the project's own manifests, under traffic."""

import json

import pytest

from scripts import canary
from scripts.lifecycle.retry import retry_put_back
from scripts.rollout import progression
from tests.scripts.rollout.kinds import KINDS
from tests.scripts.rollout.runs import Run, of, restoring


def percents_written(run: Run) -> list[float]:
    """The parts of the traffic that the canary was given, one after the other."""
    if run.kind.name == "rollout":
        return run.cluster.controllers[-1].weights
    if run.kind.name == "deployment":
        notes = [body["metadata"].get("annotations", {}) for _, body in run.cluster.patches]
        return [json.loads(note["model-server/canary"])["percent"] for note in notes if any(note.values())]
    written = []
    for _, body in run.cluster.patches:
        spec = body["spec"]
        if "rules" in spec:
            written.append(spec["rules"][0]["backendRefs"][1]["weight"])
        else:
            written.append(spec["predictors"][1]["traffic"])
    return written


def test_a_good_canary_gets_all_traffic_step_by_step(run: Run, capsys):
    began = run.clock.monotonic()
    assert canary.main([*run.arguments, "--step-seconds", "1.5"]) == 0
    assert run.clock.monotonic() - began >= 5 * 1.5
    said = capsys.readouterr()
    assert said.err == ""
    assert list(dict.fromkeys(percents_written(run))) == [5, 10, 25, 50, 100]
    assert run.percent == 100
    assert [line.split(":")[0] for line in said.out.splitlines() if line.startswith("at ")] == [
        f"at {percent} %" for percent in (5, 10, 25, 50, 100)
    ]


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ({"failing": 0.1}, "requests of the canary fail, stable: 0.0% of"),
        ({"seconds": 0.04}, "95 % of the canary's answers take up to"),
        ({"first_class": 0.2}, "the canary predicts 'no' for 20.0% of"),
    ],
    ids=["errors", "latency", "classes"],
)
def test_a_canary_that_does_worse_is_put_back(run: Run, capsys, worse, why):
    vars(run.canary).update(worse)
    before = run.percent
    assert canary.main(run.arguments) == 1
    said = capsys.readouterr()
    assert why in said.out.splitlines()[-1]
    assert said.err == ""
    assert run.percent == (0 if run.kind.name == "rollout" else before) == 0
    assert max(percents_written(run)) < 50


def test_where_nobody_asks_it_waits_and_then_puts_it_back(run: Run, capsys):
    few = ["--max-step-seconds", "1", "--min-requests", "1000000"]
    assert canary.main([*run.arguments, *few]) == 1
    assert "after 1 s stable has" in capsys.readouterr().out.splitlines()[-1]
    assert run.percent == 0


def test_a_prometheus_that_goes_away_puts_it_back(run: Run, capsys, at_first_look):
    at_first_look(lambda: setattr(run.prometheus, "is_dead", True))
    began = run.clock.monotonic()
    assert canary.main([*run.arguments, "--step-seconds", "10"]) == 1
    assert run.clock.monotonic() - began < 5
    assert "gave no valid answer" in capsys.readouterr().out.splitlines()[-1]
    assert run.percent == 0


def test_a_cluster_that_is_away_for_long_puts_it_back_as_soon_as_it_answers(
    run: Run, capsys, monkeypatch, at_first_look
):
    def come_back(put_back, say):
        return retry_put_back(
            put_back, lambda sentence: (say(sentence), setattr(run.cluster, "is_dead", False))
        )

    monkeypatch.setattr(progression, "retry_put_back", come_back)
    at_first_look(lambda: setattr(run.cluster, "is_dead", True))
    began = run.clock.monotonic()
    assert canary.main([*run.arguments, "--step-seconds", "10"]) == 1
    assert run.clock.monotonic() - began < 5
    said = capsys.readouterr()
    assert "retrying for" in said.out
    assert "does not answer" in said.out.splitlines()[-1]
    assert run.percent == 0


def test_a_cluster_that_stays_away_is_told_with_what_to_do_by_hand(run: Run, capsys, at_first_look):
    at_first_look(lambda: setattr(run.cluster, "is_dead", True))
    assert canary.main([*run.arguments, "--step-seconds", "10"]) == 1
    said = capsys.readouterr()
    assert "WAS NOT ROLLED BACK" in said.err
    by_hand = "kubectl argo rollouts abort" if run.kind.name == "rollout" else "--restore"
    assert by_hand in said.err
    assert said.err.count("\n") == 1
    assert run.percent > 0


def test_a_run_that_was_killed_is_gone_on_with(run: Run, capsys, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    # As if the process had ended in the middle: nothing is put back.
    with monkeypatch.context() as patch:
        patch.setattr("scripts.rollout.progression.Canary._put_back", lambda *_: False)
        patch.setattr("scripts.rollout.progression.judge", die)
        with pytest.raises(Killed):
            canary.main(run.arguments)
    assert 0 < run.percent < 100
    written = list(percents_written(run))
    capsys.readouterr()
    assert canary.main(run.arguments) == 0
    assert (
        capsys.readouterr().out.splitlines()[0].endswith("5 %, 10 %, 25 %, 50 %, 100 %, at least 0.3 s each")
    )
    assert list(dict.fromkeys(percents_written(run)))[len(written) :] == [10, 25, 50, 100]
    assert run.percent == 100


def test_a_dry_run_says_the_plan_and_does_nothing(run: Run, capsys):
    before = run.percent
    assert canary.main([*run.arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("5 %, 10 %, 25 %, 50 %, 100 %, at least 0.3 s each")
    assert "rolls back to" in "".join(lines)
    assert "compares {" in lines[-1]
    assert run.cluster.patches == []
    assert run.percent == before


def test_what_somebody_else_moves_is_left_alone(run: Run, capsys, at_first_look):
    def interfere() -> None:
        match run.kind.name:
            case "httproute":
                backends = run.document["spec"]["rules"][0]["backendRefs"]
                run.cluster.change(run.document, lambda _: backends[1].update(weight=70))
            case "seldondeployment":
                predictors = run.document["spec"]["predictors"]
                run.cluster.change(run.document, lambda _: predictors[1].update(traffic=70))
            case "deployment":
                other = run.cluster.objects["deployments/model-server-canary"]
                run.cluster.change(other, lambda _: other["spec"].update(replicas=0))
            case "rollout":
                run.cluster.change(run.document, lambda _: run.document["status"].pop("pauseConditions"))

    at_first_look(interfere)
    assert canary.main([*run.arguments, "--step-seconds", "10"]) == 1
    said = capsys.readouterr()
    assert "somebody else" in said.err
    assert "left unchanged" in said.err
    expected = {"httproute": 100 * 70 / 165, "seldondeployment": 70, "deployment": 0, "rollout": 10}
    assert run.percent == pytest.approx(expected[run.kind.name])


# A Rollout keeps its place itself: both runs would look at the same step.
@of(*KINDS[:3])
def test_a_second_run_takes_over_from_the_first(run: Run, capsys, at_first_look):
    codes: list[int] = []
    at_first_look(lambda: codes.append(canary.main(run.arguments)))
    codes.append(canary.main([*run.arguments, "--step-seconds", "10"]))
    assert codes == [0, 1]  # the second one ends before the first looks again
    assert "another canary has taken it over" in capsys.readouterr().err
    assert run.percent == 100


def test_it_is_put_back_by_hand(run: Run, capsys):
    before = [json.dumps(one["spec"]) for one in run.cluster.objects.values()]
    assert canary.main(run.arguments) == 0
    capsys.readouterr()
    code = canary.main(restoring(run))
    said = capsys.readouterr().out
    if run.kind.name == "rollout":
        assert (code, said) == (1, "Rollout model-server/model-server: no canary has moved it\n")
        return
    assert code == 0
    assert "as before" in said
    assert [json.dumps(one["spec"]) for one in run.cluster.objects.values()] == before
    assert canary.main(restoring(run)) == 1


def test_what_is_done_already_is_not_done_again(run: Run, capsys):
    assert canary.main(run.arguments) == 0
    n = len(run.cluster.patches)
    capsys.readouterr()
    assert canary.main(run.arguments) == 0
    assert capsys.readouterr().out.endswith("the canary has all traffic already\n")
    assert len(run.cluster.patches) == n


def test_a_controller_that_changes_the_object_at_the_same_time_is_no_reason_to_stop(run: Run):
    seen: set[int] = set()

    def touch(document: dict) -> None:
        """Once for each patch: its resourceVersion is another by the time it is there."""
        if (n := len(run.cluster.patches)) not in seen:
            seen.add(n)
            run.cluster.change(
                document, lambda one: one["metadata"].setdefault("labels", {}).update(n=str(n))
            )

    run.cluster.on_patch = touch
    assert canary.main([*run.arguments, *([] if run.kind.name == "rollout" else ["--steps", "50,100"])]) == 0
    assert run.percent == 100
    assert len(seen) >= 2


def test_json_tells_what_each_step_found(run: Run, capsys):
    run.canary.failing = 0.1
    assert canary.main([*run.arguments, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["done"] is False
    assert "requests of the canary fail" in facts["why"]
    (look,) = facts["looks"]
    assert (look["percent"], look["verdict"]) == (5, "break off")
    assert look["canary"]["error_rate"] == pytest.approx(0.1, abs=0.05)
    assert look["stable"]["error_rate"] == 0
    assert look["stable"]["p95_seconds"] == pytest.approx(0.0025, rel=0.05)
