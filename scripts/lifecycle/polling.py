"""Waiting until services follow the registry."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from scripts.lifecycle.services import N_CONNECTIONS, Refusal, Seen, look

PAUSE_SECONDS = 0.5
"""Between two looks at a service that does not follow yet."""


def wait_for_version(
    urls: Sequence[str], version: str, seconds: float, known: Collection[Refusal] = ()
) -> dict[str, str]:
    """Waits until every service answers with a version; returns why the others do not, by URL."""
    return wait_for(urls, lacks_champion(version), seconds, version, known)


def lacks_champion(version: str) -> Callable[[Seen], str]:
    """Returns what says why a service does not answer with the version; nothing where it does."""

    def lacks(seen: Seen) -> str:
        champion = seen.versions.get("champion")
        return "" if champion == version else seen.trouble or f"it answers with version {champion}"

    return lacks


def lacks_challenger(version: str, percent: float) -> Callable[[Seen], str]:
    """Returns what says why the version does not get its share at a service; nothing where it does."""

    def lacks(seen: Seen) -> str:
        if seen.versions.get("challenger") != version:
            return seen.trouble or (
                f"version {version} is not the challenger; does the service have SERVING_CHALLENGER_ALIAS?"
            )
        return "" if seen.percents["challenger"] == percent else "the share is another"

    return lacks


def wait_for(
    urls: Sequence[str],
    lacks: Callable[[Seen], str],
    seconds: float,
    version: str,
    known: Collection[Refusal] = (),
) -> dict[str, str]:
    """Waits until no service lacks anything; returns what the others do, by URL.

    Each is asked on its own, so that one that hangs takes no time from another. Where one refuses the version, nothing
    is waited for any more.

    Args:
        urls: of the services.
        lacks: says of what a worker said what is missing; nothing where all is well.
        seconds: to wait.
        version: that they are to take.
        known: refusals from before.
    """
    give_up = time.monotonic() + seconds
    is_over = threading.Event()
    refused: dict[str, str] = {}

    def wait(url: str) -> str:
        while True:
            missing = ""
            for _ in range(N_CONNECTIONS):
                seen = look(url)
                missing = lacks(seen)
                if why := seen.why_refused(version, known):
                    refused[url] = why
                    is_over.set()
                if missing or is_over.is_set():
                    break
            if not missing or time.monotonic() > give_up or is_over.wait(PAUSE_SECONDS):
                return missing

    with ThreadPoolExecutor(max(1, len(urls))) as pool:
        try:
            late = dict(zip(urls, pool.map(wait, urls), strict=True))
        finally:
            is_over.set()
    return refused or {url: missing for url, missing in late.items() if missing}


def known_refusals(urls: Sequence[str]) -> frozenset[Refusal]:
    """Returns what services have refused up to now."""
    with ThreadPoolExecutor(max(1, len(urls) * N_CONNECTIONS)) as pool:
        seen = list(pool.map(look, [url for url in urls for _ in range(N_CONNECTIONS)]))
    return frozenset(refusal for one in seen for refusal in one.refused)
