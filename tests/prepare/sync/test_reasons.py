"""Something is missing at a start: one clear line, not ready, and recovery."""

import contextlib
import logging
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from tests.support.disks import small_disk
from tests.support.doubles import Double, Nonsense
from tests.support.environment import free_port, wait_until
from tests.support.promotions import NAME, Registry
from tests.support.rounds import Rounds


@pytest.fixture
def follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[..., Rounds]:
    """Sets up what follows a registry; the second one has the store of the first, and another run directory."""

    def follow(*, has_processes: bool = False, **environment: str) -> Rounds:
        shutil.rmtree(tmp_path / "service" / "run", ignore_errors=True)
        return Rounds(tmp_path / "service", monkeypatch, has_processes=has_processes, **environment)

    caplog.set_level(logging.INFO)
    return follow


@pytest.fixture
def own(tmp_path: Path) -> Registry:
    """A registry of the test's own, with one version."""
    return Registry(tmp_path / "own", 1.0, owns_artifacts=True)


def of(registry: Registry) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": registry.uri, "SERVING_MODEL_NAME": NAME}


def said_once(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """The log has the reason in one line, no trace, and not again at every attempt."""
    (record,) = [record for record in caplog.records if record.getMessage().startswith("not ready: ")]
    assert reason in record.getMessage()
    assert not [record for record in caplog.records if record.exc_info]


def test_no_such_model_names_the_nearest(
    follow: Callable[..., Rounds], own: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = follow(MLFLOW_TRACKING_URI=own.uri, SERVING_MODEL_NAME="whine")
    for _ in range(2):
        state = rounds.next()
        assert "no model 'whine'" in state.reason
        assert "did you mean 'wine'?" in state.reason
    said_once(caplog, state.reason)


def test_pinned_version_that_is_not_there(follow: Callable[..., Rounds], own: Registry) -> None:
    state = follow(**of(own), SERVING_MODEL_VERSION="99").next()
    assert "no version 99" in state.reason
    assert "SERVING_MODEL_VERSION" in state.reason


@pytest.fixture(params=["refuses", "hangs", "talks nonsense"])
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of a tracking server that cannot be queried."""
    if request.param == "refuses":
        yield free_port()
    elif request.param == "hangs":
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
            yield server.getsockname()[1]
    else:
        with Double(Nonsense).running() as double:
            yield double.server_address[1]


def test_dead_tracking_server_is_told_without_the_password(
    follow: Callable[..., Rounds], dead_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = follow(
        has_processes=True,  # which end where the client would try again for minutes
        MLFLOW_TRACKING_URI=f"http://user:hunter2@127.0.0.1:{dead_port}",
        SERVING_REGISTRY_TIMEOUT_SECONDS="1",
    )
    for _ in range(2):
        state = rounds.next()
        assert "cannot be queried" in state.reason
        assert f"http://127.0.0.1:{dead_port}" in state.reason
    assert "hunter2" not in caplog.text + state.reason
    said_once(caplog, state.reason)


def test_missing_artifact_and_its_return(follow: Callable[..., Rounds], own: Registry) -> None:
    away = own.artifacts.with_name("away")
    own.artifacts.rename(away)
    rounds = follow(**of(own))
    assert "artifacts of 'wine' version 1 cannot be fetched" in rounds.next().reason
    away.rename(own.artifacts)
    wait_until(lambda: rounds.next().champion, 60, "it is served")


def test_damaged_model_file_is_refused(follow: Callable[..., Rounds], own: Registry, tmp_path: Path) -> None:
    (model_file,) = own.artifacts.rglob("model.*")
    model_file.write_bytes(model_file.read_bytes()[:100])
    state = follow(**of(own)).next()
    assert "'wine' version 1 is refused: it cannot be loaded" in state.reason
    assert list((tmp_path / "service" / "bentoml").rglob("manifest.json")) == []


def test_a_pickle_that_is_not_allowed_any_more_is_not_even_served_as_the_last_one(
    follow: Callable[..., Rounds], registry: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"MLFLOW_TRACKING_URI": registry, "SERVING_MODEL_NAME": "custom pyfunc"}
    assert follow(**settings, SERVING_ALLOW_PICKLE="true").next().champion is not None
    assert "runs its author's code" in caplog.text
    state = follow(**settings, SERVING_ALLOW_PICKLE="").next()
    assert state.champion is None
    assert "SERVING_ALLOW_PICKLE=true" in state.reason


def test_a_version_whose_files_are_in_doubt_now_is_not_even_served_as_the_last_one(
    follow: Callable[..., Rounds], own: Registry
) -> None:
    assert follow(**of(own)).next().champion is not None
    mlflow.MlflowClient(own.uri, own.uri).set_model_version_tag(NAME, "1", "serving.digest", "0" * 64)
    state = follow(**of(own)).next()
    assert state.champion is None
    assert "files have changed since registration" in state.reason


def test_a_start_without_the_artifacts_serves_what_was_served_last(
    follow: Callable[..., Rounds], tmp_path: Path
) -> None:
    own = Registry(tmp_path / "two", 1.0, 0.01, owns_artifacts=True)
    first = follow(**of(own)).next().champion
    own.promote("2")
    away = own.artifacts.with_name("away")
    own.artifacts.rename(away)
    rounds = follow(**of(own))
    state = rounds.next()
    assert state.champion == first
    assert "version 2 cannot be fetched" in state.stale
    away.rename(own.artifacts)
    wait_until(lambda: str(rounds.next().champion).startswith(f"{NAME}:2-"), 60, "version 2 is served")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    with small_disk(tmp_path / "disk", 8) as disk:
        yield disk


@pytest.mark.parametrize("has_champion", [True, False])
def test_a_full_disk_keeps_a_version_out_until_there_is_room(
    follow: Callable[..., Rounds], disk: Path, tmp_path: Path, has_champion: bool
) -> None:
    registry = Registry(tmp_path / "two", 1.0, 0.01)
    champion = None
    rounds = follow(**of(registry), BENTOML_HOME=str(disk))
    if has_champion:
        champion = rounds.next().champion
        assert champion is not None
        registry.promote("2")
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as stream:
        while True:
            stream.write(b"x" * 4096)
            stream.flush()
    state = rounds.next()
    assert state.champion == champion
    assert "the disk is full" in (state.stale if has_champion else state.reason)
    assert not list((disk / "preparing").glob("*.tmp")), "a rest of it takes up room"
    filler.unlink()
    wait_until(lambda: rounds.next().champion != champion, 60, "there is room")
