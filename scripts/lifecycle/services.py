"""Services that are to follow the registry: which version answers."""

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
"""A service has several workers, and each connection comes to one of them."""

NO_ANSWER = "no answer"


def add_url_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name services."""
    parser.add_argument(
        "--url",
        action="append",
        type=http_url,
        default=[],
        help="a service that has to follow, http://host:port, at each address of its name; may be repeated",
    )
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds in which they have to (%(default)g)"
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
    """Returns what a service answers, within seconds as a whole; of its name's addresses the one that is given.

    Raises:
        OSError: it does not answer, or not well.
    """
    request = urllib.request.Request(f"{url.rstrip('/')}{path}", headers={"Connection": "close"})  # noqa: S310  # the user's own
    try:
        return ask(request, REQUEST_SECONDS, None, connecting_to(Endpoint(url, address))).body
    except http.client.HTTPException as error:
        raise OSError(type(error).__name__) from error


class Refusal(NamedTuple):
    """A version that a service does not take."""

    version: str
    at: str
    reason: str


class Seen(NamedTuple):
    """What a service says of its versions."""

    versions: dict[str, str]
    """By role."""
    percents: dict[str, float]
    refused: tuple[Refusal, ...] = ()
    stale: str = ""
    """Why it does not follow the registry's last word."""
    trouble: str = ""
    """Why it says nothing."""
    model: str = ""
    """The registered model that it serves; empty where it has none yet."""
    aliases: Mapping[str, str | None] = MappingProxyType({})
    """That it follows, by role; empty of a service that does not tell."""

    @property
    def is_silent(self) -> bool:
        """True where it does not answer at all."""
        return self.trouble.startswith(NO_ANSWER)

    def why_refused(self, version: str, known: Collection[Refusal]) -> str:
        """Returns why a version is refused now; empty where it is not.

        Args:
            version: its number.
            known: refusals from before; one of them counts only while it is what keeps the service from following.
        """
        for one in self.refused:
            if one.version == version and (one not in known or one.reason == self.stale):
                return one.reason
        return ""


def look(url: str, address: str = "") -> Seen:
    """Asks a service which versions answer; of its name's addresses the one that is given."""
    try:
        said = json.loads(fetch(url, "/v1/models", address))
        models = said["models"]
        return Seen(
            {model["role"]: model["version"] for model in models},
            {model["role"]: model["percent"] for model in models},
            tuple(Refusal(one["version"], one.get("at", ""), one["reason"]) for one in said["refused"]),
            said.get("stale") or "",
            "" if models else "no model is ready",
            models[0].get("name", "") if models else "",
            said.get("aliases") or {},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Seen({}, {}, trouble=f"{NO_ANSWER} ({type(error).__name__})")


def check_services(urls: Sequence[str], model: str) -> None:
    """Makes sure, before anything is moved, that there are services that could follow.

    Raises:
        LifecycleError: one does not answer as a service, or serves another model.
    """
    for url, seen in look_at_all(urls).items():
        if seen.is_silent:
            raise LifecycleError(f"no service answers at {url} (--url): {seen.trouble}")
        if seen.model and seen.model != model:
            raise LifecycleError(f"{url} (--url) serves the model {seen.model!r}, not {model!r}")


def check_followed(urls: Sequence[str], role: str, alias: str) -> None:
    """Makes sure, before anything is moved, that services take the version of a role from the alias.

    Args:
        urls: of the services.
        role: `challenger` or `shadow`.
        alias: that they are to follow for it.

    Raises:
        LifecycleError: one takes none, or from another alias.
    """
    for url, seen in look_at_all(urls).items():
        followed = seen.aliases.get(role, alias)
        if followed != alias:
            raise LifecycleError(
                f"{url} (--url) follows {f'the alias {followed!r}' if followed else 'no alias'} for its {role}; start it "
                f"with SERVING_{role.upper()}_ALIAS={alias}, or say its alias with --{role}-alias"
            )


def look_at_all(urls: Sequence[str]) -> dict[str, Seen]:
    """Asks all services at once, each at every address of its name; returns what they say, by URL and address.

    An address that is silent is left out where others of its name answer: a name keeps that of a pod that has ended for a
    while, and loses that of one that is not ready.
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
    """Asks every address of each service once; returns how many have a version in a role, by URL."""
    found = {}
    for url in urls:
        endpoints = endpoints_of(url)
        with ThreadPoolExecutor(len(endpoints)) as pool:
            seen = list(pool.map(lambda one: look(*one), endpoints))
        found[url] = Answering(sum(one.versions.get(role) == version for one in seen), len(endpoints))
    return found


def answering_with(version: str) -> tuple[str, str]:
    """Returns what one address does that has a version as its champion, and what several do."""
    return f"answers with version {version}", f"answer with version {version}"


def tell_answering(found: Mapping[str, Answering], what: tuple[str, str]) -> list[str]:
    """Returns what was seen, and no more than that, in a sentence for each service.

    Args:
        found: see `count_answering`.
        what: one address does, and several do, as of `answering_with`.
    """
    does, do = what
    return [
        f"{url} {does}; how many stand behind it is not seen"
        if one.n_addresses == 1
        else f"{one.n} of the {one.n_addresses} addresses of {url} {do}"
        for url, one in found.items()
    ]
