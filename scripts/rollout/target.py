"""What a canary can be: something in a cluster that gives two sides parts of the traffic."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from scripts.lifecycle import LifecycleError
from scripts.rollout.cluster import Conflict, Unavailable

POLL_SECONDS = 2.0
"""Between two looks at an object that is to change."""


class NotReached(LifecycleError):
    """The cluster does not get there: pods that are not ready, or a rollout that was aborted."""

    exit_code = 1


class Sides(NamedTuple):
    """How the metrics of both sides are told apart: label matchers, as between the braces of a query."""

    stable: str
    canary: str


class Target(Protocol):
    """Something that gives a canary parts of the traffic. All its methods raise ClusterError, too."""

    title: str
    """Kind, namespace and name."""

    is_present: bool
    """True where pods of the canary run before it has any traffic, so that it can be looked at."""

    def open(self, steps: Sequence[int] | None) -> Sequence[int] | None:
        """Reads where it is.

        Args:
            steps: rising percents up to 100; None takes its own.

        Returns:
            The percents that are left to go to, none where it only has to be finished; None where it is done already.

        Raises:
            LifecycleError: it is not as a canary needs it.
        """

    @property
    def plan(self) -> Sequence[str]:
        """What is worth knowing before it begins, in sentences: where it would go back to, and what a step is in truth."""

    @property
    def is_begun(self) -> bool:
        """True where an earlier run has left the canary with traffic."""

    @property
    def sides(self) -> Sides:
        """The matchers of both sides; known once it is open."""

    def go_to(self, percent: int) -> str:
        """Gives the canary its part and waits until it has it; returns how, in words.

        Raises:
            NotReached: it does not get there in time.
            Overtaken: somebody else has moved it.
        """

    def check_ours(self) -> None:
        """Makes sure that nobody else has moved it.

        Raises:
            Overtaken: somebody has.
            NotReached: it has gone back by itself.
        """

    def finish(self) -> str:
        """Does what is left after the last step; returns what comes next, in words."""

    def put_back(self, *, is_dry: bool = False) -> str:
        """Gives all traffic back as it was; may be called again where it was broken off.

        Args:
            is_dry: only say how it would be.

        Returns:
            How it is now, in words, and nothing where it was not changed.

        Raises:
            Overtaken: somebody else has moved it; it is left alone.
        """

    @property
    def by_hand(self) -> str:
        """What people can do where the cluster does not answer."""


Found = TypeVar("Found")


def wait_until(look: Callable[[], Found | None], seconds: float, what: Callable[[], str]) -> Found:
    """Looks until there is something; returns it.

    Args:
        look: returns it, or None. That the cluster does not answer is no reason to give up before the time is over.
        seconds: to wait.
        what: says what was waited for.

    Raises:
        NotReached: it is not there in time.
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
"""For so long a cluster that has no time is asked for a step; where it has none then, the canary is put back."""


def patiently(act: Callable[[], Found]) -> Found:
    """Does something that may be done again; tries again where the cluster is busy or away for a moment.

    Raises:
        Unavailable: it is so for longer.
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
    """Reads and changes an object; anew where somebody else, such as a controller, changes it at the same time.

    Raises:
        Conflict: again and again.
    """
    for _ in range(N_CONFLICTS):
        try:
            return attempt()
        except Conflict:
            continue
    return attempt()
