"""Services that are to follow the registry: which version answers."""

import argparse
import http.client
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import NamedTuple

REQUEST_SECONDS = 5
N_CONNECTIONS = 4
"""A service has several workers, and each connection comes to one of them."""


def add_url_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name services."""
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        help="a service that has to follow, http://host:port; may be repeated",
    )
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds in which they have to (%(default)g)"
    )


def fetch(url: str, path: str) -> bytes:
    """Returns what a service answers.

    Raises:
        OSError: it does not answer, or not well.
    """
    request = urllib.request.Request(f"{url.rstrip('/')}{path}", headers={"Connection": "close"})  # noqa: S310  # the user's own
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:  # noqa: S310  # the same
            body: bytes = answer.read()
            return body
    except http.client.HTTPException as error:
        raise OSError(type(error).__name__) from error


class Seen(NamedTuple):
    """What a service says of its versions."""

    versions: dict[str, str]
    """By role."""
    percents: dict[str, float]
    refused: dict[str, str]
    """Why, by version."""
    trouble: str = ""
    """Why it says nothing."""


def look(url: str) -> Seen:
    """Asks a service which versions answer."""
    try:
        said = json.loads(fetch(url, "/v1/models"))
        models = said["models"]
        return Seen(
            {model["role"]: model["version"] for model in models},
            {model["role"]: model["percent"] for model in models},
            {one["version"]: one["reason"] for one in said["refused"]},
            "" if models else "no model is ready",
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Seen({}, {}, {}, f"no answer ({type(error).__name__})")


def wait_for_version(urls: Sequence[str], version: str, seconds: float) -> dict[str, str]:
    """Waits until every service answers with a version; returns why the others do not, by URL."""

    def lacks(seen: Seen) -> str:
        champion = seen.versions.get("champion")
        return "" if champion == version else seen.trouble or f"version {champion}"

    return wait_for(urls, lacks, seconds, version)


def wait_for(
    urls: Sequence[str], lacks: Callable[[Seen], str], seconds: float, version: str
) -> dict[str, str]:
    """Waits until no service lacks anything; returns what the others do, by URL.

    A service that refuses the version is not waited for.

    Args:
        urls: of the services.
        lacks: says of what a worker said what is missing; nothing where all is well.
        seconds: to wait.
        version: that they are to take.
    """
    give_up = time.monotonic() + seconds
    late = dict.fromkeys(urls, "not asked")
    lost: dict[str, str] = {}
    while late:
        for url in list(late):
            said = [look(url) for _ in range(N_CONNECTIONS)]
            refusals = [seen.refused[version] for seen in said if version in seen.refused]
            missing = sorted({lacks(seen) for seen in said} - {""})
            if refusals:
                lost[url] = refusals[0]
                del late[url]
            elif missing:
                late[url] = ", ".join(missing)
            else:
                del late[url]
        if lost or not late or time.monotonic() > give_up:
            break
        time.sleep(0.5)
    return late | lost
