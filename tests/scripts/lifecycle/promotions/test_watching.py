"""What is looked at while a version is promoted: who else moves it, which services answer, what they count and refuse."""

import json
import socket
import time

import pytest

from scripts import history, promote
from scripts.lifecycle import services
from scripts.lifecycle.counters import ServiceCounts
from scripts.lifecycle.guard import Counts
from scripts.lifecycle.polling import lacks_champion, wait_for
from scripts.lifecycle.services import Seen
from tests.support.environment import free_port
from tests.support.fake_service import FakeService, Run, counted
from tests.support.promotions import NAME, Registry
from tests.support.proxy import Proxy


def test_what_a_service_has_counted_before_it_was_first_asked_does_not_count():
    with FakeService(dict).running() as early, FakeService(dict).running() as late:
        early.metrics = late.metrics = lambda: counted("2", 100, 100)
        late.is_dead = True
        since = ServiceCounts([early.url, late.url]).follow("2")
        late.is_dead = False
        assert since() == Counts()
        early.metrics = late.metrics = lambda: counted("2", 130, 101)
        assert since() == Counts(60, 2, pytest.approx(0.06))
        early.is_dead = True
        assert since() == Counts(60, 2, pytest.approx(0.06))


def test_a_service_that_is_not_there_any_more_takes_the_version_back(
    registry: Registry, service: FakeService, run: Run
):
    service.on_look = lambda: setattr(service, "is_dead", n_looks(service) > 5)
    code, out, _ = run(promote, "2", "--url", service.url, "--watch", "1")
    assert code == 1
    assert f"rolled back to version 1: {service.url}: no answer" in out
    assert registry.aliases["production"] == "1"


def n_looks(service: FakeService) -> int:
    """How often it was asked after the move, this time among them."""
    service.looks = getattr(service, "looks", 0) + (service.current()["production"] == "2")  # type: ignore[attr-defined]
    return int(service.looks)  # type: ignore[attr-defined]


def test_a_version_that_fails_and_has_nothing_before_it_to_compare_with_is_taken_back(
    registry: Registry, service: FakeService, run: Run
):
    service.metrics = lambda: counted("2", 0, 30 if registry.aliases["production"] == "2" else 0)
    code, out, _ = run(promote, "2", "--url", service.url, "--watch", "5")
    assert code == 1
    assert "100.0% of 30 requests fail, with too few requests before to compare" in out


def test_what_somebody_else_moves_while_it_is_watched_is_left_alone(
    registry: Registry, service: FakeService, run: Run
):
    service.on_look = lambda: registry.promote("3") if n_looks(service) == 6 else None
    code, out, err = run(promote, "2", "--url", service.url, "--watch", "5", "--json")
    assert (code, err.count("\n")) == (1, 1)
    assert "is version 3 by now, not version 2: somebody else has moved it" in err
    assert json.loads(out)["done"] is False
    assert registry.aliases["production"] == "3"


def test_what_somebody_else_has_moved_before_the_move_is_left_alone(
    registry: Registry, service: FakeService, run: Run
):
    service.metrics = lambda: registry.promote("3") or b""
    code, out, err = run(promote, "2", "--url", service.url)
    assert (code, out) == (1, "")
    assert "is version 3 by now, not version 1" in err
    assert registry.aliases["production"] == "3"


def test_a_rollback_meanwhile_is_no_success(registry: Registry, service: FakeService, run: Run):
    service.on_look = lambda: registry.promote("1") if n_looks(service) == 6 else None
    code, _, err = run(promote, "2", "--url", service.url, "--watch", "5")
    assert code == 1
    assert "is version 1 by now, not version 2" in err
    assert registry.aliases["production"] == "1"


def refusal(at: str) -> dict[str, str]:
    return {"version": "2", "code": "model_refused", "reason": "it is bad", "at": at}


def test_a_version_that_was_refused_before_and_is_taken_now_is_promoted(
    registry: Registry, service: FakeService, run: Run
):
    service.refused = [refusal("2026-01-01T00:00:00+00:00")]
    assert run(promote, "2", "--url", service.url)[0] == 0


def test_a_version_that_is_refused_once_more_is_taken_back_at_once(
    registry: Registry, service: FakeService, run: Run
):
    service.refused = [refusal("2026-01-01T00:00:00+00:00")]

    def refuse_again() -> None:
        if registry.aliases["production"] == "2":
            service.refused = [refusal("2026-01-01T00:00:05+00:00")]

    service.on_look = refuse_again
    code, out, _ = run(promote, "2", "--url", service.url)
    assert code == 1
    assert "rolled back to version 1" in out
    assert "it is bad" in out


def test_why_a_service_is_late_is_said_once_while_it_tries_again(
    registry: Registry, service: FakeService, run: Run
):
    n_looks = 0

    def follow_late() -> None:
        nonlocal n_looks
        n_looks += registry.aliases["production"] == "2"
        is_late = 0 < n_looks < 10
        service.stale = "its bucket is not there" if is_late else None
        service.current = lambda: {"production": "1"} if is_late else registry.aliases

    service.on_look = follow_late
    code, out, _ = run(promote, "2", "--url", service.url)
    assert (code, n_looks > 10) == (0, True)
    why = f"waiting: {service.url}: it answers with version 1: its bucket is not there\n"
    assert [line for line in out.splitlines(keepends=True) if line.startswith("waiting")] == [why]


def test_the_first_promotion_is_taken_back_and_recorded(registry: Registry, service: FakeService, run: Run):
    registry.client.delete_registered_model_alias(NAME, "production")
    service.current = dict
    code, out, _ = run(promote, "2", "--url", service.url, "--timeout", "0")
    assert code == 1
    assert f"{NAME}@production was rolled back to no version" in out
    assert registry.aliases == {}
    told = json.loads(run(history, "--json")[1])
    assert told["current"] is None
    move = told["moves"][-1]
    assert (move["kind"], move["from"], move["to"]) == ("rollback", "2", None)
    assert "rollback  2     –" in run(history)[1]


def test_services_are_waited_for_side_by_side(service: FakeService, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(services, "REQUEST_SECONDS", 2)
    service.current = lambda: {"production": "2"}
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(20)
        hanging = [f"http://127.0.0.1:{deaf.getsockname()[1]}/{i}" for i in range(3)]
        n_asked = 0

        def lacks(seen: Seen) -> str:
            nonlocal n_asked
            n_asked += not seen.trouble
            return lacks_champion("2")(seen) or ("" if n_asked > 1 else "not yet")

        started = time.monotonic()
        late = wait_for([*hanging, service.url], lacks, 1, "2", say=print)
        assert time.monotonic() - started < 4  # one request that hangs takes 2 s
    assert set(late) == set(hanging)


def test_all_versions_come_back_to_their_stage(registry: Registry, service: FakeService, run: Run):
    for version in "21":
        registry.transition(version, "Production")
    service.current = dict
    code, out, _ = run(promote, "3", "--stage", "Production", "--url", service.url, "--timeout", "0")
    assert code == 1
    assert "wine/Production was rolled back to version 1" in out
    assert registry.stages == {"1": "Production", "2": "Production", "3": "None"}
    assert json.loads(run(history, "--stage", "Production", "--json")[1])["current"] == "1"


def test_the_version_in_the_stage_of_the_alias_name_is_the_one_before(
    registry: Registry, service: FakeService, run: Run
):
    registry.client.delete_registered_model_alias(NAME, "production")
    registry.transition("1", "Production")
    service.current = lambda: {"production": "1"} | registry.aliases
    assert json.loads(run(promote, "2", "--dry-run", "--json")[1])["from"] == "1"
    assert "is version 1 already" in run(promote, "1")[1]
    service.metrics = lambda: counted("1", 100, 50) + counted("2", 0, 30 if registry.aliases else 0)
    code, out, _ = run(promote, "2", "--url", service.url, "--watch", "2")
    assert code == 1
    assert "before 33.3% of 150" in out
    assert "rolled back to version 1" in out
    assert registry.aliases == {}


def test_a_service_whose_answer_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(services, "REQUEST_SECONDS", 1)
    with Proxy(free_port()).running() as proxy, proxy.misbehaving("body without an end"):
        started = time.monotonic()
        assert services.look(proxy.url).trouble == "no answer (TimeoutError)"
        assert time.monotonic() - started < 4
