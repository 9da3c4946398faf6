"""What becomes of versions that cannot, or must not be served: they stay out, until something about them changes."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import msgspec
import pytest

from serving.model.digests import DIGEST_TAG
from serving.model.state import Report, State, read_state, write_report
from serving.prepare.registry.resolution import FORCE_TAG
from tests.support.environment import wait_until
from tests.support.models import wine
from tests.support.prepared import take_prepared
from tests.support.promotions import (
    NAME,
    Registry,
    another_signature,
    nan_outputs,
    trapped,
    version_of_strength,
)
from tests.support.rounds import Rounds


def truncated(registry: Registry) -> str:
    version = registry.add(wine)
    file = registry.artifact(version, "model.skops")
    file.write_bytes(file.read_bytes()[:200])
    return version


def changed(registry: Registry) -> str:
    """The digest is that of other files."""
    version = registry.add(wine)
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_model_version_tag(NAME, version, DIGEST_TAG, "0" * 64)
    return version


BAD: dict[str, tuple[Callable[[Registry], str], str]] = {
    "truncated file": (truncated, "cannot be loaded"),
    "wrong digest": (changed, "files have changed since registration"),
    "another signature": (lambda r: r.add(another_signature), "it requires the column 'region'"),
    "NaN outputs": (lambda r: r.add(nan_outputs), "are not finite"),
    "slow predict": (lambda r: r.add(trapped("slow")), "it is too slow"),
    "untrusted type": (
        lambda r: r.add(trapped("none", "skops")),
        "SERVING_TRUSTED_TYPES=tests.support.promotions.Trap",
    ),
}
"""One that crashes: `test_promotion.py`."""


@pytest.mark.parametrize("what", BAD)
def test_a_bad_version_is_refused_once_and_the_one_that_answers_goes_on(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, reason = BAD[what]
    registry = Registry(tmp_path / "own", 1.0)
    bad = make(registry)
    take_prepared(tmp_path / "bentoml", registry.uri)
    rounds = Rounds(
        tmp_path,
        monkeypatch,
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        # The champion was timed beside other tests: ten times that may be more than the slow one takes, which is then
        # asked for thousands of rows.
        SERVING_MAX_SLOWDOWN="2",
    )
    champion = rounds.next().champion
    assert champion is not None
    registry.promote(bad)
    state = rounds.next()
    (refused,) = state.refused
    assert (refused.version, state.champion) == (bad, champion)
    assert reason in refused.reason
    assert reason in state.stale
    for _ in range(3):
        assert rounds.next() == state
    assert rounds.attempts.count(bad) == 1
    registry.promote("1")
    assert rounds.next().stale == ""


def test_a_version_that_takes_all_memory_is_told_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another time there may be more of it; how often, is in `test_failures.py`."""
    registry = Registry(tmp_path / "own", 1.0)
    greedy = registry.add(trapped("greedy"))
    registry.promote(greedy)
    rounds = Rounds(
        tmp_path,
        monkeypatch,
        has_processes=True,
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_PREPARE_MEMORY_MB="2000",
    )
    state = rounds.next()
    assert "more memory than is available" in state.reason
    assert (state.refused, rounds.attempts) == ((), [greedy])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Rounds, Registry]:
    """What follows a registry, and serves its version 1."""
    registry = Registry(tmp_path / "own", 1.0)
    take_prepared(tmp_path / "bentoml", registry.uri)
    rounds = Rounds(tmp_path, monkeypatch, MLFLOW_TRACKING_URI=registry.uri, SERVING_MODEL_NAME=NAME)
    assert is_version(rounds, "1")
    return rounds, registry


def is_version(rounds: Rounds, version: str) -> bool:
    """Whether it is the champion after another round."""
    return str(rounds.next().champion).startswith(f"{NAME}:{version}-")


def test_a_version_whose_file_is_missing_is_taken_once_the_file_is_there(
    served: tuple[Rounds, Registry],
) -> None:
    rounds, registry = served
    version = registry.add(version_of_strength(0.1))
    file = registry.artifact(version, "MLmodel")
    content = file.read_bytes()
    file.unlink()
    registry.promote(version)
    state = rounds.next()
    assert "cannot be fetched" in state.stale
    assert str(state.champion).startswith(f"{NAME}:1-")
    assert state.refused == ()
    file.write_bytes(content)
    wait_until(lambda: is_version(rounds, version), 60, "it is served")


def test_a_refused_version_is_tried_again_when_it_has_changed(served: tuple[Rounds, Registry]) -> None:
    rounds, registry = served
    version = registry.add(another_signature)
    registry.promote(version)
    assert [one.version for one in rounds.next().refused] == [version]
    mlflow.MlflowClient(registry.uri, registry.uri).set_model_version_tag(NAME, version, FORCE_TAG, "true")
    assert is_version(rounds, version)
    assert rounds.next().refused == ()


def test_a_version_that_another_service_prepared_has_to_pass_the_gate_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is shared; to the other service the slow version is the first, and nothing is compared."""
    registry = Registry(tmp_path / "own", 1.0)
    slow = registry.add(trapped("tardy"))
    shared = {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "BENTOML_HOME": str(tmp_path / "store"),
        "SERVING_MAX_SLOWDOWN": "2",
    }
    with monkeypatch.context() as other:
        assert is_version(Rounds(tmp_path / "a", other, **shared, SERVING_MODEL_VERSION=slow), slow)
    rounds = Rounds(tmp_path / "b", monkeypatch, **shared)
    assert is_version(rounds, "1")
    registry.promote(slow)
    (refused,) = rounds.next().refused
    assert refused.version == slow
    assert "it is too slow" in refused.reason
    assert rounds.attempts == ["1"]


def test_where_only_mlflows_client_can_ask_it_is_asked_once_a_minute_unless_somebody_says_there_is_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "own", 1.0, 0.1)
    take_prepared(tmp_path / "bentoml", registry.uri)
    rounds = Rounds(
        tmp_path,
        monkeypatch,
        MLFLOW_TRACKING_URI=registry.uri,
        MLFLOW_TRACKING_AUTH="a plugin",
        SERVING_MODEL_NAME=NAME,
    )
    assert is_version(rounds, "1")
    registry.promote("2")
    assert is_version(rounds, "1")
    rounds.hurry()
    assert is_version(rounds, "2")


@contextlib.contextmanager
def worker(rounds: Rounds, champion: str, broken: str | None) -> Iterator[list[State]]:
    """A worker that answers with the champion; yields the states in which it was told to load another model.

    Args:
        rounds: of its service.
        champion: what it answers with.
        broken: why it cannot load another one; None where it can.
    """
    report = Report(os.getpid(), champion, (champion,), {})
    write_report(rounds.run_directory, report)
    staged: list[State] = []
    is_over = threading.Event()

    def load() -> None:
        while not is_over.wait(0.01):
            state = read_state(rounds.run_directory)
            if state is not None and state.staged is not None and not staged:
                staged.append(state)
                time.sleep(0.2)  # in which nothing may be swapped
                latest = read_state(rounds.run_directory)
                assert latest is not None
                staged.append(latest)
                loaded = (champion,) if broken else (champion, state.staged)
                why = {state.staged: broken} if broken else {}
                write_report(rounds.run_directory, msgspec.structs.replace(report, loaded=loaded, broken=why))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield staged
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("broken", [None, "cannot be loaded: OSError"])
def test_a_version_is_swapped_in_once_every_worker_has_loaded_it(
    broken: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "own", 1.0, 0.1)
    take_prepared(tmp_path / "bentoml", registry.uri)
    rounds = Rounds(tmp_path, monkeypatch, MLFLOW_TRACKING_URI=registry.uri, SERVING_MODEL_NAME=NAME)
    champion = str(rounds.next().champion)
    registry.promote("2")
    with worker(rounds, champion, broken) as staged:
        state = rounds.next()
    assert [one.champion for one in staged] == [champion, champion]
    if broken:
        assert state.champion == champion
        assert [one.version for one in state.refused] == ["2"]
        assert broken in state.stale
    else:
        assert state.champion == staged[0].staged
        assert state.previous == champion
