"""What went wrong with versions so far, and when each is tried again."""

import time

import msgspec

from serving.errors import PrepareError
from serving.prepare.registry.resolution import Resolved

MAX_RETRY_SECONDS = 600
"""Between two attempts at a version that failed for a reason that may pass."""


class _Failure(msgspec.Struct):
    error: PrepareError
    n_times: int
    next_try: float
    """By the monotonic clock; infinite where it is not tried again."""


class Failures:
    """Of one service, remembered until something about the version changes in the registry.

    Another champion to be compared with may let a version pass, too: it is part of the key.
    """

    def __init__(self, pause_seconds: float) -> None:
        """Takes the pause after a first failure; each further one doubles it."""
        self._pause_seconds = pause_seconds
        self._failures: dict[tuple[str, str | None], _Failure] = {}

    def check(self, resolved: Resolved, champion: str | None) -> None:
        """Refuses a version whose time has not come.

        Raises:
            PrepareError: what it failed with.
        """
        failure = self._failures.get((resolved.fingerprint, champion))
        if failure is not None and time.monotonic() < failure.next_try:
            raise failure.error

    def add(self, resolved: Resolved, champion: str | None, error: PrepareError, seconds: float) -> bool:
        """Remembers a failure; returns whether it is for good.

        Args:
            resolved: the version.
            champion: the tag of the model that it was compared with.
            error: what it failed with.
            seconds: that the attempt took; the next one is no sooner.
        """
        key = resolved.fingerprint, champion
        before = self._failures.get(key)
        n_times = before.n_times + 1 if before else 1
        is_final = error.final_after is not None and n_times >= error.final_after
        pause = min(max(self._pause_seconds * 2 ** min(n_times - 1, 20), seconds), MAX_RETRY_SECONDS)
        self._failures[key] = _Failure(error, n_times, float("inf") if is_final else time.monotonic() + pause)
        return is_final

    def forget(self, resolved: Resolved, champion: str | None) -> None:
        """Forgets what a version failed with."""
        self._failures.pop((resolved.fingerprint, champion), None)
