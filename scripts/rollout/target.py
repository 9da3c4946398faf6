"""Interface of the objects in a cluster that split traffic between two sides."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from scripts.lifecycle import LifecycleError
from scripts.rollout.cluster import Conflict, Unavailable

POLL_SECONDS = 2.0
"""Polling interval for an object that is changing."""


class NotReached(LifecycleError):
    """The cluster does not reach the state asked for: pods are not ready, or a rollout was aborted."""

    exit_code = 1


class Sides(NamedTuple):
    """Label matchers of both sides' metrics, as between the braces of a query."""

    stable: str
    canary: str


class Target(Protocol):
    """An object that gives a canary a share of the traffic. All its methods raise ClusterError, too."""

    title: str
    """Kind, namespace and name."""

    is_present: bool
    """True if the canary's pods run before they get traffic, so that their metrics can be checked."""

    def open(self, steps: Sequence[int] | None) -> Sequence[int] | None:
        """Reads its progress.

        Args:
            steps: rising percents up to 100; None takes its own.

        Returns:
            The remaining percents, empty if only `finish` is left; None if it is done already.

        Raises:
            LifecycleError: it is unsuitable for a canary.
        """

    @property
    def plan(self) -> Sequence[str]:
        """Sentences about the plan: what it would roll back to, and what a step amounts to."""

    @property
    def is_begun(self) -> bool:
        """True if an earlier run has left the canary with traffic."""

    @property
    def sides(self) -> Sides:
        """The matchers of both sides; known after `open`."""

    def go_to(self, percent: int) -> str:
        """Gives the canary its share and waits until it has it; returns the result in words.

        Raises:
            NotReached: it does not get there in time.
            Overtaken: somebody else has moved it.
        """

    def check_ours(self) -> None:
        """Checks that nobody else has moved it.

        Raises:
            Overtaken: somebody has.
            NotReached: it has rolled back by itself.
        """

    def finish(self) -> str:
        """Completes the canary after the last step; returns the next action in words."""

    def put_back(self, *, is_dry: bool = False) -> str:
        """Rolls the traffic back; may be called again after an interruption.

        Args:
            is_dry: only describe the result.

        Returns:
            The result in words; empty if nothing was changed.

        Raises:
            Overtaken: somebody else has moved it; it is left unchanged.
        """

    @property
    def by_hand(self) -> str:
        """What to do by hand if the cluster does not answer."""


Found = TypeVar("Found")


def wait_until(look: Callable[[], Found | None], seconds: float, what: Callable[[], str]) -> Found:
    """Polls until there is a result; returns it.

    Args:
        look: returns the result, or None; called again if the cluster does not answer.
        seconds: timeout.
        what: returns the message for a timeout.

    Raises:
        NotReached: there is no result in time.
    """
    give_up = time.monotonic() + seconds
    while True:
        trouble = ""
        try:
            found = look()
        except Unavailable as error:
            found, trouble = None, f" ({error})"
        if found is not None:
            return found
        if time.monotonic() > give_up:
            raise NotReached(f"{what()} after {seconds:g} s{trouble}")
        time.sleep(POLL_SECONDS)


PATIENCE_SECONDS = 30
"""How long a step is retried while the cluster does not answer; then the canary is rolled back."""


def patiently(act: Callable[[], Found]) -> Found:
    """Calls an idempotent function; retries it while the cluster does not answer.

    Raises:
        Unavailable: it does not answer for longer.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return act()
        except Unavailable:
            if time.monotonic() > give_up:
                raise
        time.sleep(POLL_SECONDS)


N_CONFLICTS = 5


def change(attempt: Callable[[], Found]) -> Found:
    """Reads and changes an object; retries if somebody else, such as a controller, changes it at the same time.

    Raises:
        Conflict: every attempt fails.
    """
    for _ in range(N_CONFLICTS):
        try:
            return attempt()
        except Conflict:
            continue
    return attempt()
