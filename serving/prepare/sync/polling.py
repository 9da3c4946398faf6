"""RegistryPoller the registry which versions are to be served: often and cheaply where that can be, else seldom."""

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
"""A registry that only MLflow's own client can ask is asked so often while a model answers: importing the client
takes seconds of a processor."""

MAX_LOOK_SECONDS = 5
"""The registry is asked at least so often while a version is prepared or loaded."""


class RegistryPoller:
    """What the registry said last, and when it is asked again."""

    def __init__(self, run_directory: Path, settings: Settings, ask_mlflow: Callable[[], Outcome]) -> None:
        """Takes the way to ask by MLflow's own client, in a process of its own."""
        self._run_directory = run_directory
        self._settings = settings
        self._ask_mlflow = ask_mlflow
        self._said_mlflow: Outcome | None = None
        self._ask_mlflow_at = 0.0
        self._wanted: Wanted | None = None
        self._look_again_at = 0.0

    def hurry(self) -> None:
        """Lets the next question be asked in any case: somebody says that there is news."""
        self._ask_mlflow_at = 0

    def ask(self, *, is_serving: bool) -> Wanted:
        """Returns the versions that the registry names.

        Args:
            is_serving: whether a model answers meanwhile.

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
            # What MLflow's own client said before is not the registry's last word any more.
            self._said_mlflow = None
        self._wanted = wanted
        return wanted

    def look_later(self) -> None:
        """Puts off the next look: what is waited for is mostly done at once, and a slow registry would hold it up."""
        self._look_again_at = time.monotonic() + MAX_LOOK_SECONDS

    def is_superseded(self, resolved: Resolved) -> bool:
        """Whether the registry, asked now and then, wants something else by now than this version got ready.

        For the champion nothing else counts; what is got ready beside it must not hold up any change.
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
