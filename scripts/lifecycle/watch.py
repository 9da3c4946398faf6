"""Whether a version does well in front of its users: services answer with it, and their counts are as before."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.lifecycle.guard import MIN_REQUESTS, Counts, Limits, find_worsening
from scripts.lifecycle.services import Seen, look_at_all

N_SILENT_LOOKS = 5
"""In so many looks in a row a service may not answer with the version: a worker may have begun anew."""


class RolledBack(Exception):
    """The version does worse, or is not taken; says why."""


class Watched(NamedTuple):
    """A version that is watched."""

    version: str
    before: Callable[[], Counts]
    """What the version before is known to have been asked."""
    after: Callable[[], Counts]
    """What this one was asked."""
    lacks: Callable[[Seen], str]
    """Says of what a service said what is missing; nothing where all is well."""
    check_ours: Callable[[], None]
    """Raises Overtaken where somebody else has moved the version away."""


class Watch:
    """Looks again and again at services while a version answers."""

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
            look_seconds: between two looks.
            limits: how much worse the version may do.
            say: tells a sentence.
        """
        self._urls, self._look_seconds, self._limits, self._say = urls, look_seconds, limits, say

    def last(self, seconds: float, watched: Watched, max_wait_seconds: float | None = None) -> None:
        """Looks for so long, and on until it is known of each service whether it answers.

        Args:
            seconds: to look; of 0 there is no look.
            watched: the version.
            max_wait_seconds: how much longer to look for enough requests to judge by, which there have to be; None if
                there need not.

        Raises:
            Overtaken: somebody else has moved it.
            RolledBack: the version does worse, a service does not answer with it, or it is not known any more how it
                does.
        """
        end = time.monotonic() + seconds
        before, after = Counts(), None
        silent: Counter[str] = Counter()
        waits = max_wait_seconds is not None
        has_said = False
        while (left := end - time.monotonic()) > 0 or (after is not None and silent) or waits:
            time.sleep(min(self._look_seconds, left) if left > 0 else self._look_seconds)
            _check(watched.check_ours)
            self._look_at_services(watched.lacks, silent)
            try:
                before, after = watched.before(), watched.after()
            except LifecycleError as error:
                raise RolledBack(str(error)) from None
            worse = find_worsening(before, after, self._limits)
            if worse is not None:
                raise RolledBack(worse)
            waits = max_wait_seconds is not None and after.requests < MIN_REQUESTS
            if max_wait_seconds is not None and waits and time.monotonic() >= end:
                if time.monotonic() >= end + max_wait_seconds:
                    raise RolledBack(
                        f"version {watched.version} was seen to get {after.requests:.0f} of the {MIN_REQUESTS} requests "
                        "that it is judged by (--max-wait); send more, or promote without --percent"
                    )
                if not has_said:
                    self._say(f"waiting for requests: {after.requests:.0f} of {MIN_REQUESTS}")
                    has_said = True
        if after is not None:
            self._tell_what_is_not_known(watched.version, before, after)

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
            self._say(
                f"version {version} was seen to get {after.requests:.0f} requests meanwhile, "
                "too few to say how it does"
            )
        elif before.requests < MIN_REQUESTS:
            self._say(
                f"the version before {version} was seen to get {before.requests:.0f} requests, "
                "too few to compare with"
            )


def _check(check_ours: Callable[[], None]) -> None:
    """Looks whether somebody else has moved it; where the registry does not answer, that is no fault of the version."""
    try:
        check_ours()
    except Overtaken:
        raise
    except LifecycleError:
        return
