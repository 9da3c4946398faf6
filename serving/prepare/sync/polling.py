"""Polls the registry for the versions to serve: often if that is cheap, else seldom."""

import time
from collections.abc import Callable
from pathlib import Path

from serving.errors import PrepareError, from_code
from serving.model.state import note_asked
from serving.prepare.registry.lookup import look_up
from serving.prepare.registry.resolution import Resolved, Wanted
from serving.prepare.request import Outcome
from serving.settings import Settings

ASK_MLFLOW_SECONDS = 60
"""Polling interval, while a model serves, of a registry that needs MLflow's own client: importing it takes seconds of
CPU time."""

MAX_LOOK_SECONDS = 5
"""Maximum polling interval while a version is prepared or loaded."""


class RegistryPoller:
    """The registry's last answer, and when to poll again."""

    def __init__(self, run_directory: Path, settings: Settings, ask_mlflow: Callable[[], Outcome]) -> None:
        """Takes a function that asks MLflow's own client, in a separate process."""
        self._run_directory = run_directory
        self._settings = settings
        self._ask_mlflow = ask_mlflow
        self._said_mlflow: Outcome | None = None
        self._ask_mlflow_at = 0.0
        self._wanted: Wanted | None = None
        self._look_again_at = 0.0

    def hurry(self) -> None:
        """Makes the next `ask` poll in any case, after a notification."""
        self._ask_mlflow_at = 0

    def ask(self, *, is_serving: bool) -> Wanted:
        """Returns the versions that the registry names.

        Args:
            is_serving: whether a model is served meanwhile.

        Raises:
            PrepareError: it does not answer, or names none.
        """
        wanted = look_up(self._settings)
        if wanted is None:
            outcome = self._said_mlflow
            if outcome is None or not is_serving or time.monotonic() > self._ask_mlflow_at:
                outcome = self._said_mlflow = self._ask_mlflow()
                self._ask_mlflow_at = time.monotonic() + ASK_MLFLOW_SECONDS
                if outcome.wanted is not None:
                    note_asked(self._run_directory)
            if outcome.wanted is None:
                raise from_code(outcome.code, outcome.message)
            wanted = outcome.wanted
        else:
            note_asked(self._run_directory)
            # An earlier answer of MLflow's own client is outdated.
            self._said_mlflow = None
        self._wanted = wanted
        return wanted

    def look_later(self) -> None:
        """Postpones the next poll: loading is mostly fast, and a slow registry would delay it."""
        self._look_again_at = time.monotonic() + MAX_LOOK_SECONDS

    def is_superseded(self, resolved: Resolved) -> bool:
        """Whether the registry, polled now and then, no longer names the version being prepared.

        A champion is superseded only by another champion; a challenger or shadow by any change, which it must not delay.
        """
        if time.monotonic() < self._look_again_at or self._wanted is None:
            return False
        self._look_again_at = time.monotonic() + min(self._settings.sync_seconds, MAX_LOOK_SECONDS)
        try:
            latest = look_up(self._settings)
        except PrepareError:
            return False
        if latest is None:
            return False
        note_asked(self._run_directory)
        champion = self._wanted.champion.fingerprint
        if resolved.fingerprint == champion:
            return latest.champion.fingerprint != champion
        return latest != self._wanted
