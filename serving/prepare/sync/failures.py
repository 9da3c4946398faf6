"""Remembers failures of versions, and when to retry each."""

import time

import msgspec

from serving.errors import PrepareError
from serving.prepare.registry.resolution import Resolved

MAX_RETRY_SECONDS = 600
"""Maximum pause between attempts at a version whose failure may be temporary."""


class _Failure(msgspec.Struct):
    error: PrepareError
    n_times: int
    next_try: float
    """By the monotonic clock; infinite if there is no retry."""


class Failures:
    """Failures of one service, remembered until the version changes in the registry.

    The key includes the champion: compared with another one, a version may pass.
    """

    def __init__(self, pause_seconds: float) -> None:
        """Takes the pause after a first failure; each further failure doubles it."""
        self._pause_seconds = pause_seconds
        self._failures: dict[tuple[str, str | None], _Failure] = {}

    def check(self, resolved: Resolved, champion: str | None) -> None:
        """Refuses a version whose retry is not due.

        Raises:
            PrepareError: its last failure.
        """
        failure = self._failures.get((resolved.fingerprint, champion))
        if failure is not None and time.monotonic() < failure.next_try:
            raise failure.error

    def add(self, resolved: Resolved, champion: str | None, error: PrepareError, seconds: float) -> bool:
        """Remembers a failure; returns whether it is final.

        Args:
            resolved: the version.
            champion: the tag of the model that it was compared with.
            error: the failure.
            seconds: duration of the attempt, and minimum pause before the next.
        """
        key = resolved.fingerprint, champion
        before = self._failures.get(key)
        n_times = before.n_times + 1 if before else 1
        is_final = error.final_after is not None and n_times >= error.final_after
        pause = min(max(self._pause_seconds * 2 ** min(n_times - 1, 20), seconds), MAX_RETRY_SECONDS)
        self._failures[key] = _Failure(error, n_times, float("inf") if is_final else time.monotonic() + pause)
        return is_final

    def forget(self, resolved: Resolved, champion: str | None) -> None:
        """Forgets a version's failures."""
        self._failures.pop((resolved.fingerprint, champion), None)
