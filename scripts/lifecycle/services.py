"""Services that are to follow the registry: which version answers."""

import argparse
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

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


def champion_of(url: str) -> str:
    """Returns the version that answers, or a few words on why there is none."""
    request = urllib.request.Request(f"{url.rstrip('/')}/v1/models", headers={"Connection": "close"})  # noqa: S310  # the user's own
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:  # noqa: S310  # the same
            models = json.loads(answer.read())["models"]
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        return f"no answer ({type(error).__name__})"
    for model in models:
        if model.get("role", "champion") == "champion":
            return f"version {model['version']}"
    return "no model is ready"


def wait_for_version(urls: Sequence[str], version: str, seconds: float) -> dict[str, str]:
    """Waits until every service answers with a version; returns what the others said last, by URL."""
    give_up = time.monotonic() + seconds
    late = dict.fromkeys(urls, "not asked")
    while late:
        for url in list(late):
            said = {champion_of(url) for _ in range(N_CONNECTIONS)}
            if said == {f"version {version}"}:
                del late[url]
            else:
                late[url] = ", ".join(sorted(said))
        if not late or time.monotonic() > give_up:
            break
        time.sleep(0.5)
    return late
