"""Waiting until services follow the registry."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from scripts.lifecycle.endpoints import Endpoint, endpoints_of, endpoints_of_all
from scripts.lifecycle.services import N_CONNECTIONS, Refusal, Seen, look

Say = Callable[[str], None]

PAUSE_SECONDS = 0.5
"""Polling interval of a service that does not follow yet."""


def wait_for_version(
    urls: Sequence[str], version: str, seconds: float, *, known: Collection[Refusal], say: Say
) -> dict[str, str]:
    """Waits until every service answers with a version; returns why the others do not, by URL."""
    return wait_for(urls, lacks_champion(version), seconds, version, known=known, say=say)


def describe_late(late: Mapping[str, str]) -> str:
    """Returns in one line why services do not follow, as `wait_for` returns it."""
    return "; ".join(f"{url}: {why}" for url, why in late.items())


def lacks_champion(version: str) -> Callable[[Seen], str]:
    """Returns a function that returns why a service does not answer with the version; empty if it does."""

    def lacks(seen: Seen) -> str:
        champion = seen.versions.get("champion")
        if champion == version:
            return ""
        return seen.trouble or f"it answers with version {champion}" + (
            f": {seen.stale}" if seen.stale else ""
        )

    return lacks


def lacks_challenger(version: str, percent: float) -> Callable[[Seen], str]:
    """Returns a function that returns why the version does not get its share at a service; empty if it does."""

    def lacks(seen: Seen) -> str:
        if seen.versions.get("challenger") != version:
            return (
                seen.trouble
                or seen.held_back.get("challenger")
                or f"version {version} is not the challenger; does the service have SERVING_CHALLENGER_ALIAS?"
            )
        return "" if seen.percents["challenger"] == percent else "the share is different"

    return lacks


def has_challenger(seen: Seen) -> str:
    """Returns which challenger a service still has; empty if none."""
    now = seen.versions.get("challenger")
    return seen.trouble or (f"version {now} is its challenger" if now else "")


def lacks_shadow(version: str | None, percent: float | None) -> Callable[[Seen], str]:
    """Returns a function that returns why a service does not have this shadow; empty if it does.

    Args:
        version: of the shadow; None if there should be no shadow.
        percent: of the requests; None if any will do.
    """

    def lacks(seen: Seen) -> str:
        now = seen.versions.get("shadow")
        if now != version:
            return (
                seen.trouble
                or seen.held_back.get("shadow")
                or (f"version {now} is its shadow" if now else "it has no shadow yet")
            )
        if seen.trouble:
            return seen.trouble
        is_share = percent is None or version is None or seen.percents["shadow"] == percent
        return "" if is_share else "the share is different"

    return lacks


def wait_for(
    urls: Sequence[str],
    lacks: Callable[[Seen], str],
    seconds: float,
    version: str,
    *,
    known: Collection[Refusal] = (),
    say: Say,
) -> dict[str, str]:
    """Waits until no service lacks anything, at any address of its name; returns what the others lack, by URL.

    Services are polled in parallel, so that one that hangs delays no other. Names are resolved each time: pods come and
    go. If a service refuses the version, the wait ends. Any other reason that a service gives for not following is
    printed once: it retries.

    Args:
        urls: of the services.
        lacks: returns what a worker's answer lacks; empty if nothing.
        seconds: to wait.
        version: that they should take.
        known: earlier refusals.
        say: prints a sentence.
    """
    give_up = time.monotonic() + seconds
    is_over = threading.Event()
    refused: dict[str, str] = {}
    told: set[str] = set()
    telling = threading.Lock()

    def tell(endpoint: Endpoint, missing: str) -> None:
        with telling:
            if missing not in told:
                told.add(missing)
                say(f"waiting: {endpoint}: {missing}")

    def ask(endpoint: Endpoint) -> str:
        for _ in range(N_CONNECTIONS):
            seen = look(*endpoint)
            if why := seen.why_refused(version, known):
                refused[str(endpoint)] = why
                is_over.set()
            if (missing := lacks(seen)) or is_over.is_set():
                if seen.explains(missing) and not is_over.is_set():
                    tell(endpoint, missing)
                return missing
        return ""

    def wait(url: str) -> dict[str, str]:
        while True:
            endpoints = endpoints_of(url)
            with ThreadPoolExecutor(len(endpoints)) as pool:
                said = zip(endpoints, pool.map(ask, endpoints), strict=True)
                late = {str(endpoint): missing for endpoint, missing in said if missing}
            if not late or time.monotonic() > give_up or is_over.wait(PAUSE_SECONDS):
                return late

    with ThreadPoolExecutor(max(1, len(urls))) as pool:
        try:
            late = list(pool.map(wait, urls))
        finally:
            is_over.set()
    return refused or {name: missing for one in late for name, missing in one.items()}


def known_refusals(urls: Sequence[str]) -> frozenset[Refusal]:
    """Returns what services have refused so far."""
    asked = endpoints_of_all(urls) * N_CONNECTIONS
    with ThreadPoolExecutor(max(1, len(asked))) as pool:
        seen = list(pool.map(lambda one: look(*one), asked))
    return frozenset(refusal for one in seen for refusal in one.refused)
