"""`serving.prepare.registry.bounded_http`: whatever a server does, the question is over in time."""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import RegistryUnreachable
from serving.prepare.registry.bounded_http import ask
from serving.prepare.registry.lookup import look_up
from serving.settings import Settings
from tests.support.doubles import Double, Nonsense
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
        with pytest.raises(RegistryUnreachable, match="does not answer as one"):
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
        assert ask(request, 10, ssl.create_default_context(cafile=certificate)) == b"<html>"
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(request, 10, ssl.create_default_context())


def test_half_an_answer_is_none(proxy: Proxy):
    with proxy.misbehaving("cut off"), pytest.raises(http.client.IncompleteRead):
        ask(urllib.request.Request(proxy.url), 10, None)
