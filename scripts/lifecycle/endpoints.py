"""Who stands behind a URL: one server, or every address of a name that has several, such as the pods of a Service."""

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
    """One server that is asked."""

    url: str
    address: str = ""
    """Of its host's addresses this one; empty where there is but one, or all are asked as one."""

    def __str__(self) -> str:
        return f"{self.url} ({self.address})" if self.address else self.url


def endpoints_of(url: str) -> list[Endpoint]:
    """Returns every address of the URL's name by itself; one endpoint where it has one, or it cannot be known.

    With TLS it is one, too: who has a certificate stands in front of the others. A name in both families of addresses
    has the same servers in both: those count of which there are more.
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
    """Returns who stands behind any of them."""
    return [endpoint for url in urls for endpoint in endpoints_of(url)]


def connecting_to(endpoint: Endpoint) -> Callable[..., http.client.HTTPConnection]:
    """Returns what makes a connection to an endpoint's address, with the name in its `Host` header."""
    if not endpoint.address:
        return Connection
    name = urllib.parse.urlsplit(endpoint.url).hostname or ""
    return functools.partial(_AtAddress, name=name, address=endpoint.address)


class _AtAddress(Connection):
    def __init__(self, host: str, *, name: str, address: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._name, self._address = name, address

    def connect(self) -> None:
        # Somebody else's host comes here by a redirect.
        if self.host.lower() != self._name:
            super().connect()
            return
        self.sock = socket.create_connection((self._address, self.port), self.timeout)


def _has_proxy(host: str) -> bool:
    """Whether a proxy is asked instead, which looks up the name itself."""
    return "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
