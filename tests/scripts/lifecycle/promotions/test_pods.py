"""Pods behind one name, as a headless Service has them: `promote.py` and `rollback.py` ask each of them."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from scripts import promote, rollback
from scripts.lifecycle.counters import ServiceCounts
from scripts.lifecycle.endpoints import Endpoint, endpoints_of
from scripts.lifecycle.guard import Counts
from tests.support.environment import free_port
from tests.support.fake_service import FakeService, Run, counted
from tests.support.promotions import Registry

NAME = "model-server-pods.model-server"

Addresses = list[str]


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Addresses:
    """What the name stands for, which a test may change; all of 127.0.0.0/8 is this machine."""
    found = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    ask_system = socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        if host != NAME:
            return ask_system(host, port, *arguments, **more)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [answer for one in found for answer in ask_system(one, port, *arguments, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


@pytest.fixture
def pods(registry: Registry, addresses: Addresses) -> Iterator[list[FakeService]]:
    """One at each address, at the same port."""
    with contextlib.ExitStack() as running:
        port = free_port()
        yield [
            running.enter_context(FakeService(lambda: registry.aliases, host, port).running())
            for host in addresses
        ]


@pytest.fixture
def url(pods: list[FakeService]) -> str:
    return f"http://{NAME}:{pods[0].server_port}"


def lag(pod: FakeService, registry: Registry, n_looks: int) -> None:
    """Lets a pod answer with version 1 for so many looks after the alias has moved."""
    left = n_looks

    def current() -> dict[str, str]:
        nonlocal left
        left -= registry.aliases["production"] != "1"
        return {"production": "1"} if left >= 0 else registry.aliases

    pod.current = current


def test_every_pod_is_waited_for_and_told(registry: Registry, pods: list[FakeService], url: str, run: Run):
    lag(pods[2], registry, 8)
    code, out, _ = run(promote, "2", "--url", url)
    assert code == 0
    assert f"3 of the 3 addresses of {url} answer with version 2" in out.splitlines()
    # Each was asked by its address, and told the name that it has.
    assert [set(pod.hosts) for pod in pods] == [{url.removeprefix("http://")}] * 3


def test_one_pod_of_three_that_does_not_follow_takes_the_version_back(
    registry: Registry, pods: list[FakeService], url: str, run: Run
):
    lag(pods[1], registry, 10_000)
    code, out, _ = run(promote, "2", "--url", url, "--timeout", "0.5")
    assert code == 1
    assert f"rolled back to version 1: {url} (127.0.0.2): it answers with version 1" in out
    assert registry.aliases == {"production": "1"}


def test_a_pod_that_refuses_the_version_is_named(
    registry: Registry, pods: list[FakeService], url: str, run: Run
):
    refusal = {
        "version": "2",
        "code": "model_refused",
        "reason": "it is bad",
        "at": "2026-01-01T00:00:05+00:00",
    }
    pods[2].on_look = lambda: setattr(
        pods[2], "refused", [refusal] if registry.aliases["production"] == "2" else []
    )
    lag(pods[2], registry, 10_000)
    code, out, _ = run(promote, "2", "--url", url)
    assert code == 1
    assert f"{url} (127.0.0.3): it is bad" in out


def test_a_pod_that_goes_back_while_it_is_watched_takes_the_version_back(
    registry: Registry, pods: list[FakeService], url: str, run: Run
):
    looks = 0

    def current() -> dict[str, str]:
        nonlocal looks
        looks += registry.aliases["production"] == "2"
        return registry.aliases if looks < 8 else {"production": "1"}

    pods[0].current = current
    code, out, _ = run(promote, "2", "--url", url, "--watch", "10")
    assert code == 1
    assert f"{url} (127.0.0.1): it answers with version 1, 5 times in a row" in out


def test_pods_that_come_and_go_are_no_fault_of_the_version(
    registry: Registry, pods: list[FakeService], url: str, addresses: Addresses, run: Run
):
    addresses.pop()
    looks = 0

    def change() -> None:
        nonlocal looks
        looks += registry.aliases["production"] == "2"
        if looks == 6:  # while it is watched, one ends, which its name tells only later, and one begins
            pods[0].is_dead = True
            addresses.append("127.0.0.3")
        if looks == 12:  # a process of old is at its address now, and leaves with it
            pods[0].is_dead, pods[0].current = False, lambda: {"production": "1"}
        if looks == 14:
            addresses.remove("127.0.0.1")

    pods[1].on_look = change
    code, out, _ = run(promote, "2", "--url", url, "--watch", "3", "--json")
    assert looks > 14
    assert code == 0, out
    assert json.loads(out)["answering"] == {url: {"n": 2, "n_addresses": 2}}


def test_what_each_pod_has_counted_is_added_up(pods: list[FakeService], url: str, addresses: Addresses):
    for n, pod in enumerate(pods, 1):
        pod.metrics = lambda n=n: counted("2", 10**n)  # type: ignore[misc]
    since = ServiceCounts([url]).follow("2")
    assert ServiceCounts([url]).past("2").answered == 1110
    for n, pod in enumerate(pods, 1):
        pod.metrics = lambda n=n: counted("2", 10**n + n)  # type: ignore[misc]
    assert since().answered == 6
    addresses.clear()
    assert since() == Counts(6, 0, pytest.approx(0.006))


def test_going_back_tells_of_every_pod(registry: Registry, pods: list[FakeService], url: str, run: Run):
    assert run(promote, "2", "--url", url)[0] == 0
    code, out, _ = run(rollback, "--url", url)
    assert (code, out.splitlines()[-1]) == (0, f"3 of the 3 addresses of {url} answer with version 1")
    pods[1].current = lambda: {"production": "1"}
    code, out, _ = run(rollback, "--url", url, "--to", "3", "--timeout", "0.3", "--json")
    told = json.loads(out)
    assert (code, told["late"]) == (1, {f"{url} (127.0.0.2)": "it answers with version 1"})
    assert told["answering"] == {}


@pytest.mark.parametrize(
    ("url", "n", "proxy"),
    [
        (f"http://{NAME}:3000", 3, {}),
        # A certificate stands in front of what is behind the name.
        (f"https://{NAME}", 1, {}),
        # Whoever looks the name up for us asks whom it likes.
        (f"http://{NAME}:3000", 1, {"http_proxy": "http://127.0.0.1:9"}),
        (f"http://{NAME}:3000", 3, {"http_proxy": "http://127.0.0.1:9", "no_proxy": ".model-server"}),
        ("http://127.0.0.1:3000", 1, {}),
        # The same server in both families of addresses.
        ("http://localhost:3000", 1, {}),
        ("http://nobody.invalid", 1, {}),
    ],
)
def test_a_name_is_asked_at_each_address_that_it_has(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch, url: str, n: int, proxy: dict[str, str]
):
    for variable, value in proxy.items():
        monkeypatch.setenv(variable, value)
    expected = [Endpoint(url, one) for one in addresses] if n > 1 else [Endpoint(url)]
    assert endpoints_of(url) == expected


def test_a_name_without_pods_is_no_service(addresses: Addresses, pods: list[FakeService], url: str, run: Run):
    addresses.clear()
    code, _, err = run(promote, "2", "--url", url)
    assert (code, err) == (2, f"promote.py: no service answers at {url} (--url): no answer (URLError)\n")
