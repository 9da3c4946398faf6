"""Services that follow the registry: which versions answer there."""

import argparse
import http.client
import json
import urllib.parse
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.endpoints import Endpoint, connecting_to, endpoints_of, endpoints_of_all
from serving.prepare.registry.bounded_http import ask
from serving.redaction import redact

REQUEST_SECONDS = 5
N_CONNECTIONS = 4
"""Connections per check: each reaches one of a service's workers."""

NO_ANSWER = "no answer"


def add_url_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name services."""
    parser.add_argument(
        "--url",
        action="append",
        type=http_url,
        default=[],
        help="service that has to follow, http://host:port, at each address of its name; may be repeated",
    )
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds in which services have to follow (%(default)g)"
    )


def http_url(text: str) -> str:
    """Returns the URL of a service.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise argparse.ArgumentTypeError(
            f"{redact(text)!r} is not the URL of a server, such as http://localhost:3000"
        )
    return text


def fetch(url: str, path: str, address: str = "") -> bytes:
    """Returns a service's answer, within a total timeout, from one address of its name if that is given.

    Raises:
        OSError: it does not answer, or answers with an error.
    """
    request = urllib.request.Request(f"{url.rstrip('/')}{path}", headers={"Connection": "close"})  # noqa: S310  # the user's own
    try:
        return ask(request, REQUEST_SECONDS, None, connecting_to(Endpoint(url, address))).body
    except http.client.HTTPException as error:
        raise OSError(type(error).__name__) from error


class Refusal(NamedTuple):
    """A version that a service rejects."""

    version: str
    at: str
    reason: str


class Seen(NamedTuple):
    """A service's answer at `/v1/models`."""

    versions: dict[str, str]
    """By role."""
    percents: dict[str, float]
    refused: tuple[Refusal, ...] = ()
    stale: str = ""
    """Why it does not follow the registry."""
    trouble: str = ""
    """Why it reports nothing, or that no model is ready."""
    model: str = ""
    """The registered model that it serves; empty if it has none yet."""
    aliases: Mapping[str, str | None] = MappingProxyType({})
    """The aliases that it follows, by role; empty if the service does not report them."""
    held_back: Mapping[str, str] = MappingProxyType({})
    """Why a challenger or shadow is not loaded, by role."""
    reason: str = ""
    """Why no model is ready."""

    @property
    def is_silent(self) -> bool:
        """True if it does not answer at all."""
        return self.trouble.startswith(NO_ANSWER)

    def explains(self, missing: str) -> bool:
        """True if something is missing for a reason that the service itself tells."""
        return any(why in missing for why in (self.stale, self.reason, *self.held_back.values()) if why)

    def why_refused(self, version: str, known: Collection[Refusal]) -> str:
        """Returns why a version is refused now; empty if it is not.

        Args:
            version: its number.
            known: earlier refusals; one of them counts only while it keeps the service from following.
        """
        for one in self.refused:
            if one.version == version and (one not in known or one.reason == self.stale):
                return one.reason
        return ""


def look(url: str, address: str = "") -> Seen:
    """Reads from a service which versions answer, at one address of its name if that is given."""
    try:
        said = json.loads(fetch(url, "/v1/models", address))
        models, reason = said["models"], said.get("reason") or ""
        return Seen(
            {model["role"]: model["version"] for model in models},
            {model["role"]: model["percent"] for model in models},
            tuple(Refusal(one["version"], one.get("at", ""), one["reason"]) for one in said["refused"]),
            said.get("stale") or "",
            "" if models else f"no model is ready{f': {reason}' if reason else ''}",
            models[0].get("name", "") if models else "",
            said.get("aliases") or {},
            said.get("held_back") or {},
            reason,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Seen({}, {}, trouble=f"{NO_ANSWER} ({type(error).__name__})")


def check_services(urls: Sequence[str], model: str) -> None:
    """Checks, before anything is moved, that the services can follow.

    Raises:
        LifecycleError: one does not answer as a service, or serves another model.
    """
    for url, seen in look_at_all(urls).items():
        if seen.is_silent:
            raise LifecycleError(f"no service answers at {url} (--url): {seen.trouble}")
        if seen.model and seen.model != model:
            raise LifecycleError(f"{url} (--url) serves the model {seen.model!r}, not {model!r}")


def check_followed(urls: Sequence[str], role: str, alias: str) -> None:
    """Checks, before anything is moved, that services take the version of a role from the alias.

    Args:
        urls: of the services.
        role: `challenger` or `shadow`.
        alias: that they should follow for it.

    Raises:
        LifecycleError: one takes none, or from another alias.
    """
    for url, seen in look_at_all(urls).items():
        followed = seen.aliases.get(role, alias)
        if followed != alias:
            raise LifecycleError(
                f"{url} (--url) follows {f'the alias {followed!r}' if followed else 'no alias'} for its {role}; start it "
                f"with SERVING_{role.upper()}_ALIAS={alias}, or give its alias with --{role}-alias"
            )


def look_at_all(urls: Sequence[str]) -> dict[str, Seen]:
    """Reads all services at once, at every address of their names; returns their answers by URL and address.

    A silent address is left out if others of its name answer: DNS keeps the address of an ended pod for a while, and
    drops that of a pod that is not ready.
    """
    endpoints = endpoints_of_all(urls)
    with ThreadPoolExecutor(max(1, len(endpoints))) as pool:
        seen = dict(zip(endpoints, pool.map(lambda one: look(*one), endpoints), strict=True))
    answering = {endpoint.url for endpoint, one in seen.items() if not one.is_silent}
    return {
        str(endpoint): one
        for endpoint, one in seen.items()
        if not one.is_silent or endpoint.url not in answering
    }


class Answering(NamedTuple):
    """How many of the addresses of a service's name answer with a version."""

    n: int
    n_addresses: int


def count_answering(urls: Sequence[str], version: str | None, role: str = "champion") -> dict[str, Answering]:
    """Reads every address of each service once; returns how many have a version in a role, by URL."""
    found = {}
    for url in urls:
        endpoints = endpoints_of(url)
        with ThreadPoolExecutor(len(endpoints)) as pool:
            seen = list(pool.map(lambda one: look(*one), endpoints))
        found[url] = Answering(sum(one.versions.get(role) == version for one in seen), len(endpoints))
    return found


def answering_with(version: str) -> tuple[str, str]:
    """Returns the predicate for a version as champion: of one address, and of several."""
    return f"answers with version {version}", f"answer with version {version}"


def tell_answering(found: Mapping[str, Answering], what: tuple[str, str]) -> list[str]:
    """Returns a sentence for each service about what was seen there.

    Args:
        found: see `count_answering`.
        what: the predicate of one address, and of several, as from `answering_with`.
    """
    does, do = what
    return [
        f"{url} {does} (one address; other pods behind it were not checked)"
        if one.n_addresses == 1
        else f"{one.n} of the {one.n_addresses} addresses of {url} {do}"
        for url, one in found.items()
    ]
