"""Something is missing at a start: one clear line, not ready, and recovery."""

import contextlib
import logging
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from tests.support.doubles import Double, Quiet
from tests.support.environment import free_port
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


class _Nonsense(Quiet):
    """Answers every request in the same way, and not as a tracking server would."""

    def do_GET(self) -> None:
        self.answer(b"<html>", media_type="text/html")

    do_POST = do_GET  # noqa: N815  # the name that the server calls


@pytest.fixture(params=["refuses", "hangs", "talks nonsense"])
def dead_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Of a tracking server that does not answer as one."""
    if request.param == "refuses":
        yield free_port()
    elif request.param == "hangs":
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
            yield server.getsockname()[1]
    else:
        with Double(_Nonsense).running() as double:
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
        assert "does not answer" in state.reason
        assert f"http://127.0.0.1:{dead_port}" in state.reason
    assert "hunter2" not in caplog.text + state.reason
    said_once(caplog, state.reason)


def test_missing_artifact_and_its_return(follow: Callable[..., Rounds], own: Registry) -> None:
    away = own.artifacts.with_name("away")
    own.artifacts.rename(away)
    rounds = follow(**of(own))
    assert "artifacts of 'wine' version 1 cannot be fetched" in rounds.next().reason
    away.rename(own.artifacts)
    until_served(rounds)


def until_served(rounds: Rounds) -> None:
    """A failure is not tried again at once."""
    for _ in range(1000):
        if rounds.next().champion is not None:
            return
    pytest.fail(f"not served: {rounds.next().reason}")


def test_damaged_model_file_is_refused(follow: Callable[..., Rounds], own: Registry, tmp_path: Path) -> None:
    (model_file,) = own.artifacts.rglob("model.*")
    model_file.write_bytes(model_file.read_bytes()[:100])
    state = follow(**of(own)).next()
    assert "'wine' version 1 is refused: it cannot be loaded" in state.reason
    assert list((tmp_path / "service" / "bentoml").rglob("manifest.json")) == []


def test_a_pickle_that_is_not_allowed_any_more_is_not_even_served_as_the_last_one(
    follow: Callable[..., Rounds], registry: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"MLFLOW_TRACKING_URI": registry, "SERVING_MODEL_NAME": "iris"}
    assert follow(**settings, SERVING_ALLOW_PICKLE="true").next().champion is not None
    assert "runs code that its writer chose" in caplog.text
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
    assert "not those that were registered" in state.reason
