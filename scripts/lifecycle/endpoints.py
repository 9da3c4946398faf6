"""The servers behind a URL: one, or every address of a name that has several, such as the pods of a Service."""

import functools
import http.client
import socket
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from serving.prepare.registry.bounded_http import Connection


class Endpoint(NamedTuple):
    """One server."""

    url: str
    address: str = ""
    """One of its host's addresses; empty if there is only one, or if the URL stands for all."""

    def __str__(self) -> str:
        return f"{self.url} ({self.address})" if self.address else self.url


def endpoints_of(url: str) -> list[Endpoint]:
    """Returns an endpoint for each address of the URL's name; a single one if it has one, or if they are unknown.

    With TLS, too, it is one: the server with the certificate is in front of the others. A name with IPv4 and IPv6
    addresses has the same servers in both families: the larger one counts.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None or _has_proxy(parts.hostname):
        return [Endpoint(url)]
    by_family: defaultdict[int, set[str]] = defaultdict(set)
    try:
        for family, *_, found in socket.getaddrinfo(
            parts.hostname, parts.port or 80, type=socket.SOCK_STREAM
        ):
            by_family[family].add(str(found[0]))
    except OSError:
        return [Endpoint(url)]
    addresses = max(by_family.values(), key=len)
    return [Endpoint(url, one) for one in sorted(addresses)] if len(addresses) > 1 else [Endpoint(url)]


def endpoints_of_all(urls: Iterable[str]) -> list[Endpoint]:
    """Returns the endpoints of all URLs."""
    return [endpoint for url in urls for endpoint in endpoints_of(url)]


def connecting_to(endpoint: Endpoint) -> Callable[..., http.client.HTTPConnection]:
    """Returns a connection class for an endpoint's address, with the name in the `Host` header."""
    if not endpoint.address:
        return Connection
    name = urllib.parse.urlsplit(endpoint.url).hostname or ""
    return functools.partial(_AtAddress, name=name, address=endpoint.address)


class _AtAddress(Connection):
    def __init__(self, host: str, *, name: str, address: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._name, self._address = name, address

    def connect(self) -> None:
        # After a redirect, the host may be another one.
        if self.host.lower() != self._name:
            super().connect()
            return
        self.sock = socket.create_connection((self._address, self.port), self.timeout)


def _has_proxy(host: str) -> bool:
    """True if requests go to a proxy, which resolves the name itself."""
    return "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
