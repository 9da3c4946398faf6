"""`serving.traffic.watchdog`: calls that do not end, by a clock that the tests turn."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from serving.traffic.watchdog import GRACE_SECONDS, MAX_TICK_SECONDS, Watchdog


class Batcher:
    """One whose call has begun when a test says so."""

    def __init__(self) -> None:
        self.policy = SimpleNamespace(timeout_seconds=60)
        self.seconds: float | None = None
        self.is_stuck = False

    def pass_time(self, seconds: float) -> float:
        if self.seconds is None:
            self.is_stuck = False
            return 0
        self.seconds += seconds
        self.is_stuck = self.seconds > self.policy.timeout_seconds
        return self.seconds


class Watched:
    """A watchdog over one model, and what it has done."""

    def __init__(self, *, is_waited_for: bool = True) -> None:
        self.batcher = Batcher()
        self.said: list[str] = []
        self.n_beats = 0
        model: Any = Mock(tag="wine:1", batcher=self.batcher)
        self._watchdog = Watchdog(
            lambda: {model: is_waited_for}, self._beat, self._note, lambda: self.said.append("replace")
        )

    def _beat(self) -> None:
        self.n_beats += 1

    def _note(self, is_stuck: bool) -> None:
        self.said.append("stuck" if is_stuck else "free")

    def pass_seconds(self, seconds: int) -> "Watched":
        for _ in range(seconds):
            self._watchdog.look(1)
        return self

    def sleep(self, seconds: float) -> "Watched":
        self._watchdog.look(seconds)
        return self


def calling(**more: Any) -> Watched:
    watched = Watched(**more)
    watched.batcher.seconds = 0
    return watched


def test_a_worker_whose_call_does_not_end_is_not_ready_and_then_replaced_once():
    watched = calling().pass_seconds(60)
    assert watched.said == []
    watched.pass_seconds(1)
    assert watched.said == ["stuck"]
    watched.pass_seconds(GRACE_SECONDS)
    assert watched.said == ["stuck", "replace"]
    watched.pass_seconds(100)
    assert watched.said == ["stuck", "replace"]


def test_a_call_that_ends_within_the_grace_costs_no_worker():
    watched = calling().pass_seconds(65)
    watched.batcher.seconds = None
    assert watched.pass_seconds(100).said == ["stuck", "free"]


def test_a_shadow_that_hangs_changes_nothing_for_callers():
    assert calling(is_waited_for=False).pass_seconds(1000).said == []


def test_a_machine_that_was_asleep_has_not_worked_at_a_call():
    assert calling().pass_seconds(50).sleep(8 * 3600).pass_seconds(8).said == []


@pytest.mark.parametrize("seconds", [0.25, MAX_TICK_SECONDS, 5])
def test_it_gives_a_sign_of_life_each_time(seconds: float):
    assert Watched().sleep(seconds).sleep(seconds).n_beats == 2
