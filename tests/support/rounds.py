"""The sync process of a service without workers: one round at a time, in the test's own process."""

import os
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from serving.model.state import State, read_state
from serving.prepare.__main__ import carry_out
from serving.prepare.request import Outcome, PrepareRequest
from serving.prepare.sync import synchronizer
from serving.settings import Settings, load_settings


class Rounds:
    """What the registry comes to, round by round."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        has_processes: bool = False,
        **environment: str,
    ) -> None:
        """Sets the service up.

        Args:
            folder: for its model store and what its processes tell each other.
            monkeypatch: of the test.
            has_processes: whether each attempt has a process of its own, as in a service; it takes four seconds
                of imports.
            environment: its settings.
        """
        self._environment = {
            "BENTOML_HOME": str(folder / "bentoml"),
            "SERVING_ALLOW_PICKLE": "true",
            "SERVING_SYNC_SECONDS": "0.01",
        } | environment
        self.attempts: list[str] = []
        """The versions that were attempted; nothing where MLflow's client was asked."""
        attempt = synchronizer.attempt

        def counted(file: Path, request: PrepareRequest | None, settings: Settings, *more: Any) -> Outcome:
            self.attempts.append(request.resolved.version if request else "")
            return attempt(file, request, settings, *more) if has_processes else carry_out(request, settings)

        monkeypatch.setattr(synchronizer, "attempt", counted)
        self.run_directory = folder / "run"
        self.run_directory.mkdir(parents=True, exist_ok=True)
        with mock.patch.dict(os.environ, self._environment):
            settings = load_settings()
        self._synchronizer = synchronizer.Synchronizer(self.run_directory, settings, threading.Event())

    def next(self) -> State:
        """Returns what the next round has come to."""
        with mock.patch.dict(os.environ, self._environment):
            self._synchronizer.round()
        state = read_state(self.run_directory)
        assert state is not None
        return state

    def hurry(self) -> None:
        """Says that there is news, as `POST /v1/sync` does."""
        self._synchronizer.hurry()
