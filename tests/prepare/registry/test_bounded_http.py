"""`serving.prepare.registry.bounded_http`: whatever a server does, the question is over in time."""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from mlflow.utils.rest_utils import MlflowHostCreds, http_request

from scripts.lifecycle.prometheus import _fetch
from serving.errors import RegistryUnreachable
from serving.prepare.registry.bounded_http import _may_have_login, ask
from serving.prepare.registry.lookup import look_up
from serving.settings import Settings
from tests.support.doubles import Double, Nonsense, Quiet
from tests.support.environment import free_port, make_certificate
from tests.support.proxy import BEHAVIOURS, Proxy

TIMEOUT_SECONDS = 1

FOR_MLFLOW = {"null", "a list for an object", "numbers for strings", "a version of another shape"}
"""What is JSON, and not what a tracking server says, is left to MLflow's own client."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(free_port()).running() as running:
        yield running


@pytest.mark.parametrize("behaviour", sorted(BEHAVIOURS.keys() - FOR_MLFLOW))
def test_a_server_in_trouble_is_given_up_in_time(proxy: Proxy, behaviour: str):
    settings = Settings(
        MLFLOW_TRACKING_URI=proxy.url, model_name="wine", registry_timeout_seconds=TIMEOUT_SECONDS
    )
    with proxy.misbehaving(behaviour):
        started = time.monotonic()
        with pytest.raises(RegistryUnreachable, match="cannot be queried"):
            look_up(settings)
        assert time.monotonic() - started < TIMEOUT_SECONDS + 3


@pytest.mark.parametrize("behaviour", sorted(FOR_MLFLOW))
def test_what_is_no_trouble_and_no_answer_is_left_to_mlflow(proxy: Proxy, behaviour: str):
    with proxy.misbehaving(behaviour):
        assert look_up(Settings(MLFLOW_TRACKING_URI=proxy.url, model_name="wine")) is None


def test_a_server_is_asked_with_tls_by_those_who_trust_it(tmp_path: Path):
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Double(Nonsense)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with server.running():
        request = urllib.request.Request(f"https://localhost:{server.server_port}/")
        assert ask(request, 10, ssl.create_default_context(cafile=certificate)).body == b"<html>"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(request, 10, ssl.create_default_context())


def test_half_an_answer_is_none(proxy: Proxy):
    with proxy.misbehaving("cut off"), pytest.raises(http.client.IncompleteRead):
        ask(urllib.request.Request(proxy.url), 10, None)


class Elsewhere(Quiet):
    """Sends everybody on to a server, or tells with which login it was asked."""

    target = ""
    logins: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        """Answers."""
        if self.path.startswith("/here"):
            self.logins.append(self.headers["Authorization"])
            self.answer(b"{}")
            return
        self.send_response(302)
        self.send_header("Location", f"{self.target}/here")
        self.send_header("Content-Length", "0")
        self.end_headers()


def by_us(url: str) -> None:
    request = urllib.request.Request(f"{url}/there", headers={"Authorization": "Bearer abc"})
    assert ask(request, 10, None).body == b"{}"


def by_prometheus(url: str) -> None:
    _fetch(f"{url.replace('://', '://me:secret@')}/there")


def by_mlflow(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
        http_request(MlflowHostCreds(url, token="abc"), "/there", "GET")


@pytest.mark.parametrize("asking", [by_us, by_prometheus, by_mlflow])
@pytest.mark.parametrize(
    ("host", "is_same_port", "has_login"),
    [("127.0.0.1", True, True), ("127.0.0.1", False, False), ("localhost", True, False)],
)
def test_a_login_goes_to_nobody_else(
    asking: Callable[[str], None], host: str, is_same_port: bool, has_login: bool
):
    with Double(Elsewhere).running() as server, Double(Elsewhere).running() as other:
        port = (server if is_same_port else other).server_address[1]
        Elsewhere.target = f"http://{host}:{port}"
        Elsewhere.logins.clear()
        asking(server.url)
    assert [login is not None for login in Elsewhere.logins] == [has_login]


@pytest.mark.parametrize(
    ("asked", "named", "may"),
    [
        ("https://h/a", "https://h/b", True),
        ("https://h/a", "https://h:443/b", True),
        ("https://h/a", "http://h/b", False),
        ("http://h/a", "https://h/b", True),
        ("http://h:5000/a", "https://h/b", False),
        ("https://h/a", "https://evil.h/b", False),
        ("https://h/a", "https://H/b", True),
    ],
)
def test_a_redirect_to_plain_http_gets_no_login(asked: str, named: str, may: bool):
    assert _may_have_login(asked, named) == may
