"""`scripts/promote.py --when-better`: a version waits as challenger or shadow for the verdict on its truths."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from scripts import promote
from serving.prepare.registry.resolution import AUTOPILOT_TAG, CHALLENGER_PERCENT_TAG
from tests.support.fake_service import FakeService, Run, compared, counted
from tests.support.promotions import NAME, Registry

BETTER, WORSE, EQUAL = (0.80, 0.90), (0.90, 0.80), (0.85, 0.85)
"""Accuracies of champion and challenger. With 1,000 labels of each, a difference of 0.1 has a standard error of 0.016."""


def without_figures() -> dict[str, Any]:
    """No row has answers of both, and a truth."""
    answer = compared("1", "2", 0, EQUAL)
    answer["comparisons"][0]["metrics"] = {}
    return answer


@pytest.fixture
def challenger(registry: Registry) -> None:
    registry.client.set_registered_model_alias(NAME, "challenger", "2")


def when_better(service: FakeService, *more: str) -> tuple[str, ...]:
    return ("2", "--when-better", "accuracy", "--url", service.url, *more)


@pytest.mark.parametrize("role", ["challenger", "shadow"])
def test_a_version_is_promoted_once_it_is_better(
    registry: Registry, service: FakeService, run: Run, role: str
):
    registry.client.set_registered_model_alias(NAME, role, "2")
    looks = itertools.count()

    def quality() -> dict[str, Any]:
        n_labels = 300 * next(looks)
        return compared(
            "1", "2", n_labels, BETTER if n_labels >= 1200 else EQUAL, role=role, is_paired=role == "shadow"
        )

    service.quality = quality
    code, out, err = run(promote, *when_better(service, "--why", "trained on June"))
    assert (code, err) == (0, "")
    assert registry.aliases["production"] == "2"
    assert next(looks) == 5  # it stopped at the first verdict
    assert out.count("not yet clear: accuracy 0.85 against 0.85") == 2  # with 300 and 600 labels of each
    (line,) = Path("audit.jsonl").read_text().splitlines()
    why = json.loads(line)["why"]
    assert why.startswith(
        "trained on June; accuracy 0.9 against 0.8 of version 1, difference +0.1, between +0.0"
    )
    assert "at 0.95 confidence, from 1,200 " in why


def test_figures_are_in_the_json(registry: Registry, service: FakeService, run: Run, challenger: None):
    service.quality = lambda: compared("1", "2", 1000, BETTER)
    code, out, _ = run(promote, *when_better(service, "--json", "--confidence", "0.99"))
    assert code == 0
    figures = json.loads(out)["quality"]
    assert (figures["verdict"], figures["confidence"], figures["challenger_labels"]) == ("better", 0.99, 1000)
    assert 0 < figures["low"] < figures["difference"] < figures["high"]
    assert figures["difference"] == pytest.approx(0.1)


def test_the_confidence_is_that_of_the_command(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    # A difference of 0.055 at 1,000 labels of each: the interval excludes 0 at 0.95, and contains it at 0.9999.
    service.quality = lambda: compared("1", "2", 1000, (0.845, 0.9))
    options = ("--max-wait", "0.2", "--confidence", "0.9999")
    assert run(promote, *when_better(service, *options))[0] == 1
    assert run(promote, *when_better(service))[0] == 0


def test_a_version_that_is_worse_is_not_promoted(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    service.quality = lambda: compared("1", "2", 1000, WORSE)
    code, out, err = run(promote, *when_better(service))
    assert (code, err) == (1, "")
    assert f"{NAME}@production stays at version 1: version 2 is worse: accuracy 0.8 against 0.9" in out
    assert registry.aliases == {"production": "1", "challenger": "2"}


@pytest.mark.parametrize(
    ("quality", "part"),
    [
        (compared("1", "2", 200, (0.85, 0.87)), "more labels make it clear"),
        (compared("1", "2", 0, (0.0, 0.0)), "version 1 has no labels yet"),
        (compared("3", "2", 1000, BETTER), "have not compared them yet"),  # with another champion
        ({"comparisons": None}, "have not compared them yet"),
        (without_figures(), "have not compared them yet"),
    ],
)
def test_what_is_missing_is_said_when_the_time_is_over(
    registry: Registry, service: FakeService, run: Run, challenger: None, quality: dict[str, Any], part: str
):
    service.quality = lambda: quality
    code, out, _ = run(promote, *when_better(service, "--max-wait", "0.2"))
    assert code == 1
    assert "not yet clear after 0.2 s (--max-wait): " in out
    assert part in out
    assert registry.aliases["production"] == "1"


def test_the_service_with_the_most_labels_is_asked(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    service.quality = lambda: compared("1", "2", 1000, BETTER)
    with FakeService(lambda: registry.aliases).running() as other:
        other.quality = lambda: compared("1", "2", 100, WORSE)
        code, out, _ = run(promote, *when_better(service, "--url", other.url))
    assert code == 0
    assert "services know 200 to 2,000 labels" in out
    assert "SERVING_FEEDBACK_STORE=postgresql://" in out


def test_what_it_did_in_another_role_does_not_count(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    service.quality = lambda: compared("1", "2", 1000, WORSE, role="shadow", is_paired=True)
    code, out, _ = run(promote, *when_better(service, "--max-wait", "0.2"))
    assert code == 1
    assert "have not compared them yet" in out


def test_a_service_without_feedback_is_named(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    code, out, err = run(promote, *when_better(service))
    assert (code, out) == (2, "")
    assert "gets no feedback" in err
    assert "SERVING_FEEDBACK_STORE" in err


def test_a_version_without_a_role_is_told_how_to_get_one(registry: Registry, service: FakeService, run: Run):
    service.quality = lambda: compared("1", "3", 1000, BETTER)
    code, out, err = run(promote, *when_better(service))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "version 2 is neither challenger nor shadow" in err
    assert "scripts/shadow.py 2" in err


def test_a_version_that_loses_its_role_is_not_waited_for(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    looks = itertools.count()

    def quality() -> dict[str, Any]:
        if next(looks) == 2:
            registry.client.delete_registered_model_alias(NAME, "challenger")
        return compared("1", "2", 200, EQUAL)

    service.quality = quality
    code, out, _ = run(promote, *when_better(service, "--max-wait", "60"))
    assert code == 1
    assert "version 2 is neither challenger nor shadow" in out


def test_a_metric_that_the_service_lacks_is_refused(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    service.quality = lambda: compared("1", "2", 1000, BETTER)
    code, _, err = run(promote, "2", "--when-better", "mae", "--url", service.url)
    assert code == 2
    assert "compare versions by accuracy, not by mae" in err


def test_somebody_who_moves_production_meanwhile_ends_the_wait(
    registry: Registry, service: FakeService, run: Run, challenger: None
):
    def quality() -> dict[str, Any]:
        registry.promote("3")
        return compared("1", "2", 200, EQUAL)

    service.quality = quality
    code, _, err = run(promote, *when_better(service))
    assert code == 1
    assert "is version 3 by now" in err
    assert registry.aliases["production"] == "3"


def test_the_autopilot_is_not_overtaken(registry: Registry, service: FakeService, run: Run, challenger: None):
    service.quality = lambda: compared("1", "2", 1000, BETTER)
    registry.client.set_registered_model_tag(NAME, AUTOPILOT_TAG, "true")
    code, out, err = run(promote, *when_better(service))
    assert (code, out) == (2, "")
    assert "the autopilot moves wine@production (tag serving.autopilot of 'wine')" in err
    assert run(promote, "2", "--url", service.url)[0] == 0


@pytest.fixture
def steps(registry: Registry, service: FakeService) -> tuple[str, ...]:
    answered = itertools.count(step=30)
    service.metrics = lambda: counted("2", next(answered))

    def look() -> None:
        tags = registry.client.get_registered_model(NAME).tags
        service.percent = float(tags.get(CHALLENGER_PERCENT_TAG, 100))

    service.on_look = look
    return ("--percent", "5,20", "--interval", "0.1")


@pytest.mark.parametrize(("accuracies", "is_promoted"), [(BETTER, True), (WORSE, False)])
def test_a_challenger_keeps_its_last_share_until_the_verdict(
    registry: Registry,
    service: FakeService,
    run: Run,
    steps: tuple[str, ...],
    accuracies: tuple[float, float],
    is_promoted: bool,
):
    shares: list[float] = []

    def quality() -> dict[str, Any]:
        shares.append(service.percent)
        return compared("1", "2", 1000 if len(shares) > 5 else 200, accuracies if len(shares) > 5 else EQUAL)

    service.quality = quality
    code, out, err = run(promote, *when_better(service, *steps))
    assert (code, err) == (0 if is_promoted else 1, "")
    assert set(shares[1:]) == {20.0}  # the first look is before anything is changed
    assert registry.aliases == {"production": "2" if is_promoted else "1"}
    assert CHALLENGER_PERCENT_TAG not in registry.client.get_registered_model(NAME).tags
    assert ("the challenger was removed: version 2 is worse" in out) is not is_promoted


def test_a_challenger_that_fails_requests_is_removed_while_it_waits(
    registry: Registry, service: FakeService, run: Run, steps: tuple[str, ...]
):
    looks, failed = itertools.count(), itertools.count(step=30)

    def quality() -> dict[str, Any]:
        if next(looks) == 3:
            service.metrics = lambda: counted("2", 1000, next(failed))
        return compared("1", "2", 200, EQUAL)

    service.quality = quality
    code, out, _ = run(promote, *when_better(service, *steps))
    assert code == 1
    assert "requests fail" in out
    assert registry.aliases == {"production": "1"}
