"""Watches a version in production: services must answer with it, and their counters must not get worse."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.lifecycle.guard import MIN_REQUESTS, Counts, Limits, find_worsening
from scripts.lifecycle.services import Seen, look_at_all

N_SILENT_LOOKS = 5
"""Failed looks at a service in a row that cause a rollback; fewer may be a worker that restarts."""


class RolledBack(Exception):
    """The version does worse, or services do not take it; the message says why."""


class Watched(NamedTuple):
    """A version that is watched."""

    version: str
    before: Callable[[], Counts]
    """Returns the counters of the version before."""
    after: Callable[[], Counts]
    """Returns the counters of this version."""
    lacks: Callable[[Seen], str]
    """Returns what a service lacks; empty if nothing."""
    check_ours: Callable[[], None]
    """Raises Overtaken if somebody else has moved the version away."""


class Watch:
    """Polls services while a version answers."""

    def __init__(
        self,
        urls: Sequence[str],
        look_seconds: float,
        limits: Limits,
        say: Callable[[str], None],
    ) -> None:
        """Takes what all versions have in common.

        Args:
            urls: of the services, which have to answer with the version.
            look_seconds: polling interval.
            limits: how much worse the version may do.
            say: prints a sentence.
        """
        self._urls, self._look_seconds, self._limits, self._say = urls, look_seconds, limits, say

    def last(self, seconds: float, watched: Watched, max_wait_seconds: float | None = None) -> None:
        """Watches for `seconds`, and until it is known whether each service answers.

        Args:
            seconds: duration; 0 skips the watch.
            watched: the version.
            max_wait_seconds: how much longer to wait for enough requests to judge by; None if they are not required.

        Raises:
            Overtaken: somebody else has moved it.
            RolledBack: the version does worse, a service does not answer with it, or its counters are lost.
        """
        end = time.monotonic() + seconds
        before, after = Counts(), None
        silent: Counter[str] = Counter()
        waits = max_wait_seconds is not None
        has_said = False
        while (left := end - time.monotonic()) > 0 or (after is not None and silent) or waits:
            time.sleep(min(self._look_seconds, left) if left > 0 else self._look_seconds)
            before, after = self.look(watched, silent)
            waits = max_wait_seconds is not None and after.requests < MIN_REQUESTS
            if max_wait_seconds is not None and waits and time.monotonic() >= end:
                if time.monotonic() >= end + max_wait_seconds:
                    raise RolledBack(
                        f"version {watched.version} got {after.requests:.0f} of the {MIN_REQUESTS} requests needed to "
                        "judge it (--max-wait); send more, or promote without --percent"
                    )
                if not has_said:
                    self._say(f"waiting for requests: {after.requests:.0f} of {MIN_REQUESTS}")
                    has_said = True
        if after is not None:
            self._tell_what_is_not_known(watched.version, before, after)

    def look(self, watched: Watched, silent: Counter[str]) -> tuple[Counts, Counts]:
        """Looks once; returns the counters of the version before, and of this one.

        Args:
            watched: the version.
            silent: failed looks in a row by service, which is updated.

        Raises:
            Overtaken: see `last`.
            RolledBack: see `last`.
        """
        check_ours(watched.check_ours)
        self._look_at_services(watched.lacks, silent)
        try:
            before, after = watched.before(), watched.after()
        except LifecycleError as error:
            raise RolledBack(str(error)) from None
        worse = find_worsening(before, after, self._limits)
        if worse is not None:
            raise RolledBack(worse)
        return before, after

    def _look_at_services(self, lacks: Callable[[Seen], str], silent: Counter[str]) -> None:
        looked = look_at_all(self._urls)
        for gone in silent.keys() - looked.keys():
            del silent[gone]
        for url, seen in looked.items():
            missing = lacks(seen)
            if not missing:
                del silent[url]
                continue
            silent[url] += 1
            if silent[url] >= N_SILENT_LOOKS:
                raise RolledBack(f"{url}: {missing}, {N_SILENT_LOOKS} times in a row")

    def _tell_what_is_not_known(self, version: str, before: Counts, after: Counts) -> None:
        if after.requests < MIN_REQUESTS:
            self._say(f"version {version} got {after.requests:.0f} requests meanwhile, too few to judge it")
        elif before.requests < MIN_REQUESTS:
            self._say(
                f"the version before {version} got {before.requests:.0f} requests, too few to compare with"
            )


def check_ours(check: Callable[[], None]) -> None:
    """Checks whether somebody else has moved it; a registry that does not answer is ignored."""
    try:
        check()
    except Overtaken:
        raise
    except LifecycleError:
        return
