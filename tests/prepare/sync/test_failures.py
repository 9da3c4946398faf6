"""`serving.prepare.sync.failures`: what is tried again, and when."""

import time

import pytest

from serving import errors
from serving.errors import ModelRefused, OutOfMemory, PrepareError, RegistryUnreachable, from_code
from serving.prepare.registry.resolution import Resolved, Version, resolved
from serving.prepare.sync.failures import Failures
from serving.prepare.sync.staging import WorkerEnded

CHAMPION = "wine:1-a"


def version(number: str) -> Resolved:
    return resolved(Version("wine", number, "s3://somewhere", "run", 0, 0, "None"), "because")


def is_tried(failures: Failures, number: str = "2", champion: str | None = CHAMPION) -> bool:
    try:
        failures.check(version(number), champion)
    except PrepareError:
        return False
    return True


@pytest.mark.parametrize(("kind", "n_tries"), [(ModelRefused, 1), (OutOfMemory, 2), (WorkerEnded, 2)])
def test_what_is_the_versions_own_fault_is_final(kind: type[PrepareError], n_tries: int):
    failures = Failures(0)
    finals = [failures.add(version("2"), CHAMPION, kind("why"), 0) for _ in range(n_tries)]
    assert finals == [False] * (n_tries - 1) + [True]
    time.sleep(0.01)
    with pytest.raises(kind, match="why"):
        failures.check(version("2"), CHAMPION)


def test_what_may_pass_is_tried_for_ever():
    failures = Failures(0)
    assert not any(failures.add(version("2"), CHAMPION, RegistryUnreachable("down"), 0) for _ in range(50))
    assert is_tried(failures)


def test_each_pause_is_twice_the_one_before_and_no_shorter_than_the_attempt():
    def pauses(n_failures: int, seconds: float = 0) -> float:
        failures = Failures(0.04)
        for _ in range(n_failures):
            failures.add(version("2"), CHAMPION, RegistryUnreachable("down"), seconds)
        started = time.monotonic()
        while not is_tried(failures):
            time.sleep(0.002)
        return time.monotonic() - started

    assert pauses(1) >= 0.039
    assert pauses(3) >= 0.159
    assert pauses(1, seconds=0.3) >= 0.299


def test_another_version_or_champion_is_another_case():
    failures = Failures(0)
    failures.add(version("2"), CHAMPION, ModelRefused("slow"), 0)
    assert not is_tried(failures)
    assert is_tried(failures, "3")
    assert is_tried(failures, champion="wine:3-c")
    failures.forget(version("2"), CHAMPION)
    assert is_tried(failures)


def test_an_error_is_the_same_to_the_process_that_is_told_of_it():
    for kind in PrepareError.__subclasses__():
        if kind.__module__ == errors.__name__:
            assert type(from_code(kind.code, "why")) is kind
