"""`scripts/promote.py --percent`: the challenger and its share are given back as they were found."""

import itertools
import os
import re
import signal
import time
from typing import Any
from unittest.mock import Mock

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from scripts import promote, rollback, shadow
from serving.prepare.registry.resolution import CHALLENGER_PERCENT_TAG, SHADOW_PERCENT_TAG
from tests.support.fake_service import FakeService, Hook, Run, counted, refuse
from tests.support.promotions import NAME, Registry


def challenger(registry: Registry) -> tuple[str | None, str | None]:
    model = registry.client.get_registered_model(NAME)
    found = model.aliases.get("challenger")
    return str(found) if found else None, model.tags.get(CHALLENGER_PERCENT_TAG)


@pytest.mark.parametrize("percent", [None, "7.5"])
@pytest.mark.parametrize("is_challenger", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_challenger_is_what_it_was_before(
    registry: Registry,
    service: FakeService,
    run: Run,
    percent: str | None,
    is_challenger: bool,
    fails: bool,
):
    if percent is not None:
        registry.client.set_registered_model_tag(NAME, CHALLENGER_PERCENT_TAG, percent)
    if is_challenger:
        registry.client.set_registered_model_alias(NAME, "challenger", "2")
    answered = itertools.count(step=30)

    def metrics() -> bytes:
        failed = 30 if fails and registry.aliases["production"] == "2" else 0
        return counted("2", next(answered), failed)

    service.metrics = metrics
    service.on_look = lambda: setattr(service, "percent", float(challenger(registry)[1] or 100))
    steps = ("--percent", "33.3333333,100", "--interval", "0.1", "--watch", "0.1")
    code, out, err = run(promote, "2", "--url", service.url, *steps)
    assert (code, err) == (1 if fails else 0, "")
    assert "gets 33.3333 % of the requests" in out
    assert challenger(registry) == ("2" if is_challenger and fails else None, percent)
    assert re.findall(r"the challenger was (\w+): ", out) == (
        ["restored" if is_challenger else "removed"] if fails else []
    )


def test_a_challenger_that_fails_is_taken_away_with_the_reason(
    registry: Registry, service: FakeService, run: Run
):
    failed = itertools.count(step=30)
    service.metrics = lambda: counted("2", 0, next(failed))
    service.on_look = lambda: setattr(service, "percent", float(challenger(registry)[1] or 100))
    code, out, _ = run(promote, "2", "--url", service.url, "--percent", "50,100", "--interval", "0.5")
    assert code == 1
    assert "the challenger was removed: 100.0% of 60 requests fail" in out
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize("interval", ["0", "0.2"])
def test_a_step_without_requests_waits_for_them(
    registry: Registry, service: FakeService, run: Run, interval: str
):
    looks = itertools.count()
    service.metrics = lambda: counted("2", 30 if next(looks) > 10 else 0)
    code, out, _ = run(promote, "2", "--url", service.url, "--percent", "100", "--interval", interval)
    assert code == 0
    assert out.count("waiting for requests: 0 of 20\n") == 1
    assert next(looks) > 10
    assert registry.aliases == {"production": "2"}


def test_a_step_that_gets_no_requests_is_no_proof(registry: Registry, service: FakeService, run: Run):
    service.metrics = lambda: counted("2", 0)
    steps = ("--percent", "100", "--interval", "0.1", "--max-wait", "0.5")
    code, out, _ = run(promote, "2", "--url", service.url, *steps)
    assert code == 1
    assert "got 0 of the 20 requests needed to judge it (--max-wait)" in out
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize(
    ("alias", "words"),
    [(None, "follows no alias for its challenger"), ("other", "follows the alias 'other'")],
)
def test_a_service_that_takes_no_challenger_is_told_before_anything_is_moved(
    registry: Registry, service: FakeService, run: Run, alias: str | None, words: str
):
    service.aliases["challenger"] = alias
    began = time.monotonic()
    code, out, err = run(promote, "2", "--url", service.url, "--percent", "50,100")
    assert time.monotonic() - began < 10
    assert (code, out) == (2, "")
    assert words in err
    assert "SERVING_CHALLENGER_ALIAS=challenger" in err
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize("seconds", ["30", "0"], ids=["within a step", "between two steps"])
def test_a_rollback_of_production_ends_the_steps_at_once(
    registry: Registry, service: FakeService, run: Run, seconds: str
):
    registry.promote("3")

    def look() -> None:
        service.percent = float(challenger(registry)[1] or 100)
        if "challenger" in registry.aliases:
            registry.promote("1")

    service.on_look = look
    started = time.monotonic()
    steps = ("--percent", "5,25,100", "--interval", seconds)
    code, out, err = run(promote, "2", "--url", service.url, *steps)
    assert time.monotonic() - started < 15
    assert code == 1
    assert "is version 1 by now, not version 3: somebody else has moved it" in err
    assert "gets 5 % of the requests" in out
    assert "gets 25 %" not in out
    assert challenger(registry) == (None, None)
    assert registry.aliases == {"production": "1"}


def test_another_challenger_is_not_pushed_aside(registry: Registry, service: FakeService, run: Run):
    registry.client.set_registered_model_alias(NAME, "challenger", "3")
    code, out, err = run(promote, "2", "--url", service.url, "--percent", "50,100")
    assert (code, out) == (2, "")
    assert "version 3 is the challenger ('challenger') already" in err
    assert f"scripts/rollback.py --name {NAME} --challenger challenger\n" in err
    assert challenger(registry)[0] == "3"


def test_a_challenger_that_cannot_be_removed_in_the_end_is_told(
    registry: Registry, service: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mlflow.MlflowClient, "delete_registered_model_alias", lambda *_: refuse())
    answered = itertools.count(step=30)
    service.metrics = lambda: counted("2", next(answered))
    code, out, _ = run(promote, "2", "--url", service.url, "--percent", "100", "--interval", "0.1")
    assert code == 0
    assert "VERSION 2 IS STILL THE CHALLENGER ('challenger') with 100 % of the requests" in out
    assert registry.aliases == {"production": "2", "challenger": "2"}


def test_an_interrupted_promotion_says_what_still_gets_requests(
    registry: Registry, service: FakeService, run: Run, after: Hook
):
    with pytest.MonkeyPatch.context() as patch:

        def interrupt(_: int) -> None:
            patch.setattr(mlflow.MlflowClient, "delete_registered_model_alias", lambda *_: refuse())
            os.kill(os.getpid(), signal.SIGINT)

        after("set_registered_model_alias", interrupt)
        code, _, err = run(promote, "2", "--url", service.url, "--percent", "10,100")
    assert code == 130
    assert registry.aliases == {"production": "1", "challenger": "2"}
    (command,) = re.findall(
        r"was not moved; VERSION 2 IS STILL THE CHALLENGER .* 10 % of the requests; end it: \S+ scripts/rollback.py (.*)",
        err,
    )
    assert run(rollback, *command.split(), "--url", service.url) == (
        0,
        f"{NAME}@challenger was removed (version 2)\n",
        "",
    )
    assert challenger(registry) == (None, None)
    assert run(rollback, "--challenger")[:2] == (0, f"{NAME}@challenger is not set\n")


@pytest.mark.parametrize("command", [(promote, "2", "--percent", "10,100"), (shadow, "--off")])
def test_a_login_that_may_not_remove_aliases_changes_nothing(
    registry: Registry, service: FakeService, run: Run, command: Any, monkeypatch: pytest.MonkeyPatch
):
    registry.client.set_registered_model_tag(NAME, SHADOW_PERCENT_TAG, "20")
    denied = MlflowException("…", error_code=PERMISSION_DENIED)
    monkeypatch.setattr(mlflow.MlflowClient, "delete_registered_model_alias", Mock(side_effect=denied))
    code, out, err = run(*command, "--url", service.url)
    assert (code, out) == (2, "")
    assert "needs the permission MANAGE on the registered model" in err
    assert registry.aliases == {"production": "1"}
    assert registry.client.get_registered_model(NAME).tags == {SHADOW_PERCENT_TAG: "20"}
