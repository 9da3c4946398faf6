"""`serving.prepare.sync.verdicts` and `autopilot`: what the verdicts decide, and what becomes of it in the rounds of the sync process."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.model.state import AutopilotStatus
from serving.monitoring.quality.judgement import Quality
from serving.prepare.registry.resolution import AUTOPILOT_TAG, CHALLENGER_PERCENT_TAG
from serving.prepare.sync import autopilot
from serving.prepare.sync.verdicts import Criterion, Role, Trouble, decide, parse_criterion
from tests.support.environment import ROOT, wait_until
from tests.support.fake_service import compared
from tests.support.models import frame
from tests.support.prepared import take_prepared
from tests.support.promotions import NAME, Registry
from tests.support.rounds import Rounds
from tests.support.services import running_service

BETTER, WORSE, EQUAL = (0.80, 0.90), (0.90, 0.80), (0.85, 0.85)
"""Accuracies of champion and challenger."""

DEFAULT = Criterion(None, 0.95)


def quality(*comparisons: dict[str, Any]) -> Quality:
    found = [one for each in comparisons for one in each["comparisons"]]
    return msgspec.json.decode(json.dumps({"comparisons": found}), type=Quality)


@pytest.mark.parametrize(
    ("accuracies", "criterion", "outcome"),
    [
        (BETTER, DEFAULT, "better"),
        (BETTER, Criterion("accuracy", 0.99), "better"),
        (WORSE, DEFAULT, "worse"),
        (EQUAL, DEFAULT, None),
        # A z of 3.4 at 1,000 labels of each: enough at one confidence only.
        ((0.845, 0.9), DEFAULT, "better"),
        ((0.845, 0.9), Criterion(None, 0.9999), None),
    ],
)
def test_a_verdict_decides(accuracies: tuple[float, float], criterion: Criterion, outcome: str | None):
    order = decide("1", {"challenger": "2"}, criterion, quality(compared("1", "2", 1000, accuracies)))
    assert (order and order.outcome) == outcome
    if order is not None:
        assert order.what[:3] == ("1", "2", "challenger")
        assert f"accuracy {accuracies[1]:g} against {accuracies[0]:g} of version 1" in order.why


@pytest.mark.parametrize(
    ("champion", "contenders"),
    [("3", {"challenger": "2"}), ("1", {"challenger": "3"}), ("1", {"shadow": "2"}), ("1", {})],
)
def test_a_verdict_on_other_versions_or_roles_decides_nothing(champion: str, contenders: dict[Role, str]):
    assert decide(champion, contenders, DEFAULT, quality(compared("1", "2", 1000, BETTER))) is None


def test_an_undecided_challenger_does_not_delay_the_shadow():
    known = quality(
        compared("1", "2", 200, EQUAL), compared("1", "3", 1000, WORSE, role="shadow", is_paired=True)
    )
    order = decide("1", {"challenger": "2", "shadow": "3"}, DEFAULT, known)
    assert order is not None
    assert order.what == ("1", "3", "shadow", "worse")


def test_a_version_in_production_is_no_longer_challenger():
    """After a move that was killed before its end."""
    order = decide("2", {"challenger": "2"}, DEFAULT, quality(compared("1", "2", 1000, BETTER)))
    assert order is not None
    assert order.what == ("2", "2", "challenger", "better")


def test_a_metric_that_is_not_compared_is_trouble():
    with pytest.raises(
        Trouble, match=r"compared by accuracy, not by mae; correct the tag serving\.autopilot"
    ):
        decide("1", {"challenger": "2"}, Criterion("mae", 0.95), quality(compared("1", "2", 1000, BETTER)))


@pytest.mark.parametrize(
    ("text", "criterion"),
    [
        ("true", DEFAULT),
        ("log_loss", Criterion("log_loss", 0.95)),
        ("Accuracy@0.99", Criterion("accuracy", 0.99)),
        ("true@0.9", Criterion(None, 0.9)),
        ("false", None),
    ],
)
def test_the_tag_has_a_criterion(text: str, criterion: Criterion | None):
    assert parse_criterion(text) == criterion


@pytest.mark.parametrize("text", ["", "yes", "f1", "accuracy@", "accuracy@95", "accuracy@nan", "x" * 1000])
def test_another_tag_is_trouble(text: str):
    with pytest.raises(
        Trouble, match=r"expected true, false or a metric \(accuracy, log_loss, mae, mse\)"
    ) as raised:
        parse_criterion(text)
    assert len(str(raised.value)) < 300


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Version 1 is in production, version 2 its challenger; the autopilot is on."""
    made = Registry(tmp_path / "own", 1.0, 0.1)
    take_prepared(tmp_path / "bentoml", made.uri)
    made.client.set_registered_model_alias(NAME, "challenger", "2")
    made.client.set_registered_model_tag(NAME, AUTOPILOT_TAG, "true")
    return made


Make = Callable[..., Rounds]


@pytest.fixture
def make(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Returns what makes the sync process of a service whose challenger was compared."""

    def of(accuracies: tuple[float, float] = BETTER, **environment: str) -> Rounds:
        known = {
            "MLFLOW_TRACKING_URI": registry.uri,
            "SERVING_MODEL_NAME": NAME,
            "SERVING_CHALLENGER_ALIAS": "challenger",
            "SERVING_LOG_PREDICTIONS": str(tmp_path / "predictions"),
            "SERVING_FEEDBACK_STORE": "sqlite",
        }
        rounds = Rounds(tmp_path, monkeypatch, **known | environment)
        (rounds.run_directory / "quality.json").write_text(json.dumps(compared("1", "2", 1000, accuracies)))
        return rounds

    return of


def is_version(tag: str | None, version: str) -> bool:
    return str(tag).startswith(f"{NAME}:{version}-")


def test_a_better_challenger_is_promoted_and_served(
    registry: Registry, make: Make, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "serving.autopilot")
    rounds = make()
    state = rounds.next()
    assert is_version(state.champion, "1")
    assert registry.aliases == {"production": "2"}
    state = rounds.next()
    assert is_version(state.champion, "2")
    assert (state.challenger, state.autopilot) == (None, AutopilotStatus("true"))
    assert [record.message for record in caplog.records if "went from version 1 to 2" in record.message] != []
    aliases = registry.aliases
    rounds.next()
    assert registry.aliases == aliases


def test_a_worse_challenger_is_removed(registry: Registry, make: Make):
    rounds = make(WORSE)
    rounds.next()
    assert registry.aliases == {"production": "1"}
    assert rounds.next().challenger is None


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"SERVING_MODEL_STAGE": "Production"}, "it moves aliases, not legacy stages"),
        ({"SERVING_MODEL_VERSION": "1"}, "SERVING_MODEL_VERSION"),
        ({"SERVING_FEEDBACK_STORE": ""}, "SERVING_FEEDBACK_STORE"),
        ({"SERVING_CHALLENGER_ALIAS": ""}, "SERVING_CHALLENGER_ALIAS"),
    ],
)
def test_what_the_service_lacks_is_told_once(
    registry: Registry, make: Make, caplog: pytest.LogCaptureFixture, environment: dict[str, str], part: str
):
    registry.transition("1", "Production")
    rounds = make(**environment)
    states = [rounds.next() for _ in range(3)]
    assert registry.aliases == {"production": "1", "challenger": "2"}
    assert states[-1].autopilot is not None
    assert part in states[-1].autopilot.trouble
    (line,) = [record.message for record in caplog.records if record.message.startswith("autopilot: ")]
    assert part in line


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Replaces the script that moves; it leaves a line in a file at each start."""

    def replace(code: str) -> Path:
        starts = tmp_path / "starts"
        file = tmp_path / "mover.py"
        file.write_text(f"import sys\nopen({str(starts)!r}, 'a').write('x')\n{code}\n")
        monkeypatch.setattr(autopilot, "SCRIPT", file)
        return starts

    return replace


def test_a_failure_is_told_once_and_retried_with_backoff(
    make: Make, script: Callable[[str], Path], caplog: pytest.LogCaptureFixture
):
    starts = script("sys.exit('the registry is down')")
    rounds = make(SERVING_SYNC_SECONDS="0.3")
    states = [rounds.next() for _ in range(30)]
    assert [state.autopilot for state in states] == [AutopilotStatus("true", "the registry is down")] * 30
    assert [record.message for record in caplog.records if "is down" in record.message] == [
        "autopilot: the registry is down"
    ]
    assert 1 <= len(starts.read_text()) < 6
    script("print('moved')")
    assert AutopilotStatus("true") in [rounds.next().autopilot for _ in range(300)]


def test_a_killed_mover_is_trouble(make: Make, script: Callable[[str], Path]):
    script("import os; os.kill(os.getpid(), 9)")
    state = make().next()
    assert state.autopilot == AutopilotStatus("true", "the mover ended with status -9")


def test_a_mover_that_hangs_is_ended(
    make: Make, script: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(autopilot, "MAX_SECONDS", 0.5)
    script("import time; time.sleep(600)")
    state = make().next()
    assert state.autopilot is not None
    assert "the move took longer than 0.5 s" in state.autopilot.trouble


def test_without_the_tag_nothing_is_started(registry: Registry, make: Make, script: Callable[[str], Path]):
    starts = script("")
    registry.client.delete_registered_model_tag(NAME, AUTOPILOT_TAG)
    assert make().next().autopilot is None
    assert not starts.exists()


def test_without_the_tag_nothing_is_imported():
    code = "import sys, serving.prepare.sync.__main__; print('serving.prepare.sync.autopilot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_truths_promote_a_challenger_in_a_running_service(registry: Registry, tmp_path: Path):
    registry.client.set_registered_model_tag(NAME, CHALLENGER_PERCENT_TAG, "50")
    settings = {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "SERVING_CHALLENGER_ALIAS": "challenger",
        "SERVING_LOG_PREDICTIONS": str(tmp_path / "log"),
        "SERVING_FEEDBACK_STORE": "sqlite",
        "SERVING_QUALITY_SECONDS": "1",
    }
    rows = frame("wine").iloc[:30]
    with running_service(tmp_path / "service", **settings) as service:
        service.wait_ready()
        wait_until(
            lambda: len(service.http.get("/v1/models").json()["models"]) == 2, 30, "it has its challenger"
        )
        feedback = []
        for n in range(60):
            answer = service.http.post(
                "/v1/predict", json={"instances": rows.to_dict("records")}, headers={"X-Request-ID": f"r{n}"}
            )
            labels = answer.json()["predictions"]
            is_right = [answer.headers["X-Model-Version"] == "2" or row % 3 > 0 for row in range(len(rows))]
            truths = [
                one["label"] if right else 1 - one["label"]
                for one, right in zip(labels, is_right, strict=True)
            ]
            feedback.append({"request_id": f"r{n}", "truths": truths})
        assert service.http.post("/v1/feedback", json={"feedback": feedback}).status_code == 200

        def champion() -> str:
            models = service.http.get("/v1/models").json()["models"]
            return ",".join(f"{model['role']} {model['version']}" for model in models)

        wait_until(lambda: champion() == "champion 2", 60, "version 2 is alone")
        assert service.http.get("/v1/models").json()["autopilot"] == {"tag": "true", "trouble": ""}
        assert registry.aliases == {"production": "2"}
        assert service.log.count("went from version 1 to 2: accuracy 1 against 0.6667 of version 1") == 1
