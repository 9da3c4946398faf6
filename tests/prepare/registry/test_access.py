"""A real tracking server below a path of its own, behind a real nginx: a private authority, a login page, a prefix."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider
from mlflow.tracking.request_auth.registry import _request_auth_provider_registry

from scripts import train
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.connection import connect
from serving.errors import RegistryUnreachable
from serving.model.digests import DIGEST_TAG, digest_of
from serving.prepare.registry.access import log_in
from serving.prepare.registry.artifacts import fetch
from serving.prepare.registry.client import resolve
from serving.prepare.registry.lookup import look_up
from serving.settings import Settings
from tests.support.certificates import Authority, make_authority
from tests.support.environment import free_port, tracking
from tests.support.models import register, wine
from tests.support.promotions import tracking_server

TOKEN = "eyJhbGciOiJub25lIn0"

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

CONFIGURATION = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_set_header Host $http_host;
  client_body_buffer_size 10m; client_max_body_size 10m; proxy_max_temp_file_size 0;
  ssl_certificate {server}; ssl_certificate_key {server};
  server {{
    listen 127.0.0.1:{plain};
    location / {{ default_type text/html; return 200 "<!doctype html><title>our intranet</title>"; }}
    location /models/registry/ {{ proxy_pass http://127.0.0.1:{mlflow}/mlflow/; }}
    location /missing/ {{ default_type text/html; return 404 "<html>not here</html>"; }}
  }}
  server {{
    listen 127.0.0.1:{sso};
    if ($http_authorization != "Bearer {token}") {{
      return 302 http://localhost:{plain}/login?state=0123456789abcdef;
    }}
    location / {{ proxy_pass http://127.0.0.1:{mlflow}; }}
  }}
  server {{
    listen 127.0.0.1:{strict};
    if ($http_authorization != "Bearer {token}") {{ return 401; }}
    location / {{ proxy_pass http://127.0.0.1:{mlflow}; }}
  }}
  server {{
    # As MLflow 2.2 answers what it does not know.
    listen 127.0.0.1:{older};
    location ~ /(logged-models|registered-models/alias) {{
      default_type text/html; return 404 "<!doctype html><title>404 Not Found</title>";
    }}
    location / {{ proxy_pass http://127.0.0.1:{mlflow}; }}
  }}
  server {{ listen 127.0.0.1:{tls} ssl; location / {{ proxy_pass http://127.0.0.1:{mlflow}; }} }}
  server {{
    listen 127.0.0.1:{mutual} ssl; ssl_client_certificate {authority}; ssl_verify_client on;
    location / {{ proxy_pass http://127.0.0.1:{mlflow}; }}
  }}
}}
"""


class Front(NamedTuple):
    """URIs of one registry, and who vouches for it."""

    mlflow: str
    """With the server's own path."""
    plain: str
    sso: str
    """Sends whoever is not logged in to a page."""
    strict: str
    """Answers 401."""
    older: str
    """Has neither aliases nor models beside runs."""
    tls: str
    mutual: str
    """Asks for a client certificate."""
    authority: Authority
    digest: str
    """Of the version's files."""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    if NGINX is None:
        if "CI" in os.environ:
            pytest.fail("there is no nginx")
        pytest.skip("there is no nginx; .ci/run installs it")
    folder = tmp_path_factory.mktemp("front")
    authority = make_authority(folder / "certificates")
    names = ("mlflow", "plain", "sso", "strict", "older", "tls", "mutual")
    ports = {name: free_port() for name in names}
    (folder / "nginx.conf").write_text(
        CONFIGURATION.format(
            folder=folder, token=TOKEN, server=authority.server, authority=authority.certificate, **ports
        )
    )
    nginx = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"])
    direct = f"http://127.0.0.1:{ports['mlflow']}/mlflow"
    options = ("--static-prefix", "/mlflow", "--artifacts-destination", str(folder / "artifacts"))
    try:
        with (
            tracking_server(
                f"sqlite:///{folder}/mlflow.db", ports["mlflow"], *options, health="/mlflow/health"
            ),
            tracking(direct),
        ):
            import mlflow

            mlflow.set_experiment("models")
            register("wine", wine)
            own = mlflow.artifacts.download_artifacts("models:/wine/1", dst_path=str(folder / "own"))
            yield Front(
                direct,
                f"http://localhost:{ports['plain']}",
                *(f"http://localhost:{ports[name]}/mlflow" for name in ("sso", "strict", "older")),
                *(f"https://localhost:{ports[name]}/mlflow" for name in ("tls", "mutual")),
                authority,
                digest_of(Path(own)),
            )
    finally:
        nginx.terminate()
        nginx.wait(20)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client is fast to give up, and knows no authority but the usual ones."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def settings(uri: str, **more: object) -> Settings:
    return Settings(MLFLOW_TRACKING_URI=uri, model_name="wine", **more)


def check_served(front: Front, uri: str, folder: Path, **more: object) -> None:
    """Both clients find the version behind the URI, and its files are those that were registered."""
    there = settings(uri, **more)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in log_in(there).items():  # as the process that prepares does
            patch.setenv(name, value)
        found = look_up(there)
        assert found == resolve(there)
        assert found is not None
        assert digest_of(fetch(found.champion, folder / "fetched", there)) == front.digest


def refusals(uri: str, **more: object) -> list[str]:
    """Why either client of the service, and the scripts, find no registry."""
    there = settings(uri, **more)
    said = []
    for ask in (look_up, resolve, connect):
        with pytest.raises((RegistryUnreachable, LifecycleError)) as error:
            ask(there)
        said.append(str(error.value))
    assert not any("\n" in line or "<" in line for line in said)
    return said


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_server_below_a_path_of_its_own_is_asked_there(front: Front, tmp_path: Path, slash: str):
    check_served(front, front.mlflow + slash, tmp_path)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_path_that_only_the_proxy_knows_is_kept(front: Front, tmp_path: Path, slash: str):
    check_served(front, f"{front.plain}/models/registry{slash}", tmp_path)


def test_a_path_that_is_missing_is_thought_of(front: Front):
    for said in refusals(f"{front.plain}/missing"):
        assert (
            "404 Not Found: no MLflow API there; is a path missing, as with mlflow server --static-prefix?"
            in said
        )


def test_a_page_that_is_no_registry_is_told_from_one(front: Front):
    for said in refusals(front.plain):
        assert "expected JSON, got " in said


def test_a_token_logs_in(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    for uri in (front.sso, front.strict):
        check_served(front, uri, tmp_path / uri[-12:-7])


def test_a_token_is_read_anew_from_its_file(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "yesterday's")
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    check_served(front, front.sso, tmp_path, registry_token_file=file)
    file.write_text("expired")
    with pytest.raises(RegistryUnreachable, match="a log-in page"):
        look_up(settings(front.sso, registry_token_file=file))
    for content, why in ((None, "No such file or directory"), ("\n", "it is empty")):
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises(RegistryUnreachable, match=f"SERVING_REGISTRY_TOKEN_FILE.: {why}"):
            look_up(settings(front.sso, registry_token_file=file))


def test_a_login_page_is_named_and_the_token_is_not(front: Front, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "expired-0123")
    for said in refusals(front.sso):
        assert "expected JSON, got " in said
        assert "a log-in page? Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME" in said
        assert "expired-0123" not in said
        assert "state" not in said


def test_a_page_of_another_host_is_named(front: Front):
    with pytest.raises(
        RegistryUnreachable, match="text/html of localhost, to which it redirects: a log-in page"
    ):
        look_up(settings(front.sso.replace("localhost", "127.0.0.1")))


def test_a_proxy_that_says_401_refuses_the_login(front: Front, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "expired-0123")
    for said in refusals(front.strict):
        assert "rejects the login" in said
        assert "MLFLOW_TRACKING_TOKEN" in said
        assert "expired-0123" not in said


@pytest.mark.parametrize(
    "variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"]
)
def test_a_private_authority_is_trusted_by_both_clients(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, str(front.authority.certificate))
    check_served(front, front.tls, tmp_path)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_certificate_may_be_left_unchecked(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    check_served(front, front.tls, tmp_path)


def test_an_authority_that_is_not_known_is_asked_for(front: Front):
    for said in refusals(front.tls):
        assert "its certificate is not trusted: " in said
        assert said.endswith("; set MLFLOW_TRACKING_SERVER_CERT_PATH to a file with its authority")


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_the_wrong_authority_is_named_with_its_variable(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
):
    other = make_authority(tmp_path).certificate
    monkeypatch.setenv(variable, str(other))
    for said in refusals(front.tls):
        assert said.endswith(f"; {variable} names {other}, which has another authority")
    monkeypatch.setenv(variable, str(tmp_path / "missing.pem"))
    with pytest.raises(
        RegistryUnreachable, match=f"{variable} names .*; expected a PEM file of certificates"
    ):
        look_up(settings(front.tls))


def test_a_certificate_for_another_name_is_no_matter_of_authorities(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(front.authority.certificate))
    for said in refusals(front.tls.replace("localhost", "127.0.0.1")):
        assert "IP address mismatch" in said
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" not in said


def test_a_client_certificate_is_shown_where_it_is_asked_for(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(front.authority.certificate))
    for said in refusals(front.mutual):
        assert "asks for a client certificate; set MLFLOW_TRACKING_CLIENT_CERT_PATH" in said
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(front.authority.client))
    check_served(front, front.mutual, tmp_path)


def test_an_http_server_that_is_asked_for_tls_is_told(front: Front):
    for said in refusals(front.mlflow.replace("http:", "https:")):
        assert "TLS fails: " in said


class _Plugin(RequestAuthProvider):
    def get_name(self) -> str:
        return "ours"

    def get_auth(self) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
        def log_in(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = f"Bearer {TOKEN}"
            return request

        return log_in


def test_what_only_mlflows_client_can_log_in_with_is_left_to_it(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_request_auth_provider_registry, "_registry", [_Plugin()])
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "ours")
    assert look_up(settings(front.strict)) is None
    found = resolve(settings(front.strict)).champion
    assert digest_of(fetch(found, tmp_path / "fetched", settings(front.strict))) == front.digest
    monkeypatch.delenv("MLFLOW_TRACKING_AUTH")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\n")
    assert look_up(settings(front.mlflow)) is None


def test_a_package_that_signs_for_aws_is_named_where_it_is_missing(
    front: Front, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    assert look_up(settings(front.mlflow)) is None
    with pytest.raises(RegistryUnreachable, match="the module requests_auth_aws_sigv4 is not installed"):
        resolve(settings(front.mlflow))


def test_train_logs_into_an_older_server_and_says_at_once_that_it_has_no_aliases(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", front.older)
    with tracking(front.older):
        assert train.main(["--estimator", "linear", "--promote"]) == 2
        said = capsys.readouterr()
        assert said.err.startswith(
            "train.py: the registry is older than MLflow 2.3, and has no aliases; leave out"
        )
        assert "held-out" not in said.out
        assert train.main(["--estimator", "linear"]) == 0
    assert "registered: churn version 1" in capsys.readouterr().out
    there = settings(front.older).model_copy(update={"model_name": "churn", "model_version": 1})
    found = look_up(there)
    assert found is not None
    assert found == resolve(there)
    files = fetch(found.champion, tmp_path / "fetched", there)
    assert digest_of(files) == found.champion.tags[DIGEST_TAG]
    assert {"MLmodel", "reference.json", "model.skops"} <= {file.name for file in files.iterdir()}
