"""`scripts/promote.py` puts back what it has moved, whatever happens."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest

from scripts import history, promote, rollback
from scripts.lifecycle import watch
from scripts.lifecycle.moves import MAX_TAG_CHARACTERS, TAG_PREFIX
from scripts.lifecycle.signals import SIGNALS
from tests.support.environment import ROOT, clean_environment
from tests.support.fake_service import FakeService, Hook, Run, refuse
from tests.support.promotions import NAME, Registry


def test_ctrl_c_while_it_watches_puts_everything_back(registry: Registry, service: FakeService):
    """In a process of its own, whose exit code it is."""
    watches = threading.Event()

    def count() -> bytes:
        if registry.aliases["production"] == "2":
            watches.set()
        return b""

    service.metrics = count
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "promote.py"), "2", "--url", service.url, "--watch", "600"],
        env=clean_environment() | {"MLFLOW_TRACKING_URI": registry.uri, "SERVING_MODEL_NAME": NAME},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watches.wait(120)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"promote.py: interrupted; {NAME}@production was rolled back to version 1\n"
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_alias_is_moved_and_another_while_it_is_put_back(
    registry: Registry, service: FakeService, run: Run, after: Hook, number: signal.Signals, code: int
):
    after("set_registered_model_alias", lambda _: os.kill(os.getpid(), number))
    assert run(promote, "2", "--url", service.url) == (
        code,
        f"{NAME}@production was rolled back to version 1: interrupted\n",
        f"promote.py: interrupted; {NAME}@production was rolled back to version 1\n",
    )
    assert registry.aliases == {"production": "1"}
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # until the process ends


def test_a_promotion_that_ends_by_itself_leaves_signals_as_they_were(registry: Registry, run: Run):
    before = [signal.getsignal(number) for number in SIGNALS]
    assert run(promote, "2")[0] == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_before_anything_is_moved(registry: Registry, service: FakeService, run: Run):
    service.metrics = lambda: os.kill(os.getpid(), signal.SIGTERM) or b""
    code, out, err = run(promote, "2", "--url", service.url)
    assert (code, out) == (143, "")
    assert f"{NAME}@production was not moved" in err


@pytest.mark.parametrize(
    "body",
    [b"<html>\n<body>502 from the proxy</body></html>\n", b"\xff\xfe\x00", b"model_x{ 3"],
    ids=["a web page", "not text", "cut off"],
)
def test_metrics_that_are_none_are_told_and_the_version_is_taken_back(
    registry: Registry, service: FakeService, run: Run, body: bytes
):
    service.metrics = lambda: body if registry.aliases["production"] == "2" else b""
    code, out, err = run(promote, "2", "--url", service.url, "--watch", "5")
    assert (code, err) == (1, "")
    assert f"was rolled back to version 1: {service.url}/metrics does not answer with metrics" in out
    assert registry.aliases["production"] == "1"


@pytest.mark.parametrize("more", [[], ["--percent", "100", "--interval", "0.2"]])
def test_a_mistake_of_ours_takes_it_back_too(
    registry: Registry, service: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch, more: list[str]
):
    def mistake(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(watch, "find_worsening", mistake)
    with pytest.raises(RuntimeError, match="a mistake"):
        run(promote, "2", "--url", service.url, "--watch", "5", *more)
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize("url", ["localhost", "localhost:3000", "http://", "http://a:port"])
def test_what_is_no_url_is_told_in_one_line(registry: Registry, run: Run, url: str):
    code, out, err = run(promote, "2", "--watch", "1", "--url", url)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{url!r} is not the URL of a server" in err


@pytest.mark.parametrize("script", [(promote, "2"), (rollback, "--to", "2")])
def test_an_audit_log_that_cannot_be_written_is_noticed_before_anything_is_moved(
    registry: Registry, run: Run, tmp_path: Path, script: tuple[Any, ...]
):
    code, out, err = run(*script, "--audit-log", str(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot be written: Is a directory" in err
    assert registry.aliases["production"] == "1"


def test_of_a_long_reason_the_tag_has_the_beginning(registry: Registry, run: Run):
    assert run(promote, "2", "--why", '"long" ' * 20_000)[0] == 0
    assert len(json.loads(Path("audit.jsonl").read_text())["why"]) == 140_000
    tags = registry.client.get_model_version(NAME, "2").tags
    last = max(tag for tag in tags if tag.startswith(TAG_PREFIX))
    assert len(tags[last]) <= MAX_TAG_CHARACTERS
    assert json.loads(tags[last])["why"].startswith('"long" "long"')


def test_a_promotion_that_cannot_be_recorded_is_taken_back(registry: Registry, run: Run, after: Hook):
    after("set_model_version_tag", refuse)
    code, out, _ = run(promote, "2")
    assert code == 1
    assert "could not be recorded: the registry: the registry is down" in out
    assert registry.aliases["production"] == "1"


def test_a_rollback_that_cannot_be_recorded_stays(registry: Registry, run: Run, after: Hook):
    after("set_model_version_tag", refuse)
    code, out, _ = run(rollback, "--to", "2")
    assert code == 1
    assert out.splitlines()[0] == f"{NAME}@production went back from version 1 to 2"
    assert "is version 2 now, and that could not be recorded" in out
    assert registry.aliases["production"] == "2"


def down_from(patch: pytest.MonkeyPatch, first: int, last: int, calls: list[str] | None = None) -> None:
    """The registry refuses to set aliases from one request to another, the first of which is 1."""
    original, n_calls = mlflow.MlflowClient.set_registered_model_alias, 0

    def call(*arguments: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        if calls is not None:
            calls.append(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])
        if first <= n_calls <= last:
            refuse()
        original(*arguments)

    patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", call)


def test_a_registry_that_does_not_put_it_back_is_told_with_what_to_do(
    registry: Registry, service: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
):
    timeouts: list[str] = []
    down_from(monkeypatch, 2, 1000, timeouts)
    service.current = lambda: {"production": "1"}
    code, out, err = run(promote, "2", "--url", service.url, "--timeout", "0")
    assert code == 1
    assert out.splitlines() == [
        f"{NAME}@production went from version 1 to 2",
        f"{NAME}@production could not be rolled back: the registry is down; retrying for 1 s",
    ]
    assert (
        "ALIAS STILL AT 2 (wine@production): run .venv/bin/python scripts/rollback.py --name wine --alias production --to 1"
        in err
    )
    assert err.count("\n") == 1
    assert {*timeouts} == {"3"}


def test_a_registry_that_answers_again_in_time_puts_it_back(
    registry: Registry, service: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch
):
    down_from(monkeypatch, 2, 4)
    service.current = lambda: {"production": "1"}
    code, out, err = run(promote, "2", "--url", service.url, "--timeout", "0", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["done"] is False
    assert registry.aliases["production"] == "1"


def test_a_move_whose_answer_is_lost_is_taken_back(registry: Registry, run: Run, after: Hook):
    after("set_registered_model_alias", lambda n_calls: refuse() if n_calls in {1, 2} else None)
    code, out, _ = run(promote, "2")
    assert code == 1
    assert "was rolled back to version 1" in out
    assert registry.aliases["production"] == "1"
    told = json.loads(run(history, "--json")[1])["moves"]
    assert (told[-1]["kind"], told[-1]["from"], told[-1]["to"]) == ("rollback", "2", "1")


def test_a_registry_that_does_not_move_it_has_done_nothing(
    registry: Registry, run: Run, monkeypatch: pytest.MonkeyPatch
):
    down_from(monkeypatch, 1, 1000)
    code, out, err = run(promote, "2")
    assert (code, out, err) == (
        2,
        "",
        f"promote.py: {NAME}@production could not be moved: the registry is down\n",
    )


def test_ctrl_c_during_a_rollback_leaves_it_made_and_recorded(registry: Registry, run: Run, after: Hook):
    after("set_registered_model_alias", lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert run(rollback, "--to", "2")[0] == 0
    assert registry.aliases["production"] == "2"
    assert json.loads(Path("audit.jsonl").read_text())["to"] == "2"


def test_ctrl_c_while_a_rollback_waits_is_told_in_a_line(registry: Registry, service: FakeService, run: Run):
    looks = itertools.count()
    # Once: the service is looked at from a thread of its own, and a second signal may come when the script has ended.
    service.on_look = lambda: next(looks) or os.kill(os.getpid(), signal.SIGINT)
    assert run(rollback, "--to", "2", "--url", service.url) == (
        130,
        f"{NAME}@production went back from version 1 to 2\n",
        "rollback.py: interrupted\n",
    )


def test_a_registry_that_dies_during_the_move_may_have_made_it(
    registry: Registry, run: Run, monkeypatch: pytest.MonkeyPatch, after: Hook
):
    down_from(monkeypatch, 1, 1000)
    # Asked as the two signatures are read, and for the aliases before the move, and then no more.
    after("get_registered_model", lambda n_calls: refuse() if n_calls > 3 else None)
    code, out, err = run(promote, "2")
    assert code == 1
    assert "retrying for 1 s" in out
    assert "ALIAS MAY BE AT 2" in err


def test_a_service_of_another_model_is_noticed_before_anything_is_moved(
    registry: Registry, service: FakeService, run: Run
):
    service.model = "churn"
    code, out, err = run(promote, "2", "--url", service.url)
    assert (code, out) == (2, "")
    assert f"{service.url} (--url) serves the model 'churn', not '{NAME}'" in err
    assert registry.aliases["production"] == "1"
