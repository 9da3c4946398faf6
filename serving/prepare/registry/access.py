"""Access to a tracking server: login, certificates, and explanations of failures.

MLflow's own client and `serving.prepare.registry.lookup` read the same variables.
"""

import base64
import os
import re
import ssl
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from serving.errors import RegistryUnreachable
from serving.settings import Settings

CA_VARIABLES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Name a file of certificate authorities; the first one set counts. Source: mlflow/utils/rest_utils.py and
requests/sessions.py; the last is OpenSSL's, which `log_in` passes on."""

CLIENT_VARIABLE = "MLFLOW_TRACKING_CLIENT_CERT_PATH"

LOG_IN = "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"

WANTS_CLIENT = f"it asks for a client certificate; set {CLIENT_VARIABLE} to a file with one and its key"

NOT_BY_AUTHORITY = {10, 62, 64}
"""OpenSSL's codes of errors that no authority fixes: an expired certificate, or one for another name or address."""

WRONG_HOST = "Invalid Host header"
"""In MLflow's answer, 403, to a host name outside its list. Source: mlflow/server/security_utils.py."""

FORBIDDEN = "Permission denied"
"""In the answer of MLflow's basic auth, 403, to a login without the permission. Source: mlflow/server/auth/__init__.py."""

NO_CLIENT_CERTIFICATE = re.compile(r"No required SSL certificate was sent|The SSL certificate error")
"""In nginx's answer, 400."""


def unreachable(settings: Settings, reason: str) -> RegistryUnreachable:
    """Returns the error for a registry that cannot be queried."""
    variable = "MLFLOW_TRACKING_URI" if settings.registry_uri is None else "MLFLOW_REGISTRY_URI"
    return RegistryUnreachable(f"the registry {settings.registry} cannot be queried ({variable}): {reason}")


def refused(settings: Settings) -> RegistryUnreachable:
    """Returns the error for a registry that rejects the service's login."""
    return RegistryUnreachable(
        f"the registry {settings.registry} rejects the login or the request; check MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and the permissions on the model"
    )


def read_token(settings: Settings) -> str | None:
    """Returns the login token, if any.

    Raises:
        RegistryUnreachable: its file cannot be read, or is empty.
    """
    file = settings.registry_token_file
    if file is None:
        return os.environ.get("MLFLOW_TRACKING_TOKEN")
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _no_token(file, getattr(error, "strerror", None) or type(error).__name__) from None
    if not token:
        raise _no_token(file, "it is empty")
    return token


def _no_token(file: Path, reason: str) -> RegistryUnreachable:
    return RegistryUnreachable(
        f"the token for the registry cannot be read from {file} (SERVING_REGISTRY_TOKEN_FILE): {reason}"
    )


def authorization(parts: urllib.parse.SplitResult, settings: Settings) -> str | None:
    """Returns the same `Authorization` header as MLflow's client.

    Source: `http_request` in mlflow/utils/rest_utils.py, and `prepare_auth` in requests/models.py: a login in the URL
    overrides all others.

    Args:
        parts: of the registry's URL.
        settings: of the service.

    Raises:
        RegistryUnreachable: the token file cannot be read, or is empty.
    """
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if parts.username:
        user, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
    elif not password:
        user = None
    if user:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    token = read_token(settings)
    return f"Bearer {token}" if token else None


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Returns the TLS context for the registry.

    Raises:
        RegistryUnreachable: a variable names a file without certificates.
    """
    variable, path = next(
        ((name, os.environ[name]) for name in CA_VARIABLES if os.environ.get(name)), ("", "")
    )
    try:
        context = ssl.create_default_context(
            cafile=path if path and not Path(path).is_dir() else None,
            capath=path if Path(path).is_dir() else None,
        )
    except OSError:
        raise unreachable(settings, f"{variable} names {path}; expected a PEM file of certificates") from None
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client := os.environ.get(CLIENT_VARIABLE):
        try:
            context.load_cert_chain(client)
        except OSError:
            raise unreachable(
                settings,
                f"{CLIENT_VARIABLE} names {client}; expected a PEM file of a certificate and its key",
            ) from None
    return context


def log_in(settings: Settings) -> dict[str, str]:
    """Returns variables that give MLflow's client the login and the authorities of `lookup`.

    Source: requests does not read `SSL_CERT_FILE`.

    Raises:
        RegistryUnreachable: the token file cannot be read, or is empty.
    """
    ours = {}
    if settings.registry_token_file is not None:
        ours["MLFLOW_TRACKING_TOKEN"] = read_token(settings) or ""
    authority = os.environ.get("SSL_CERT_FILE")
    if authority and not any(os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")):
        ours["REQUESTS_CA_BUNDLE"] = authority
    return ours


def bounds(settings: Settings) -> dict[str, str]:
    """Returns timeout variables for MLflow's client, except those already set.

    Source: its defaults are 120 s and 7 retries with backoff.
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(settings.registry_timeout_seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


def explain_page(asked: str, answered: str, media_type: str) -> str:
    """Returns an explanation of an answer that is not JSON.

    Args:
        asked: the URL requested.
        answered: the URL after redirects.
        media_type: of the answer.
    """
    here, there = (urllib.parse.urlsplit(url).hostname for url in (asked, answered))
    where = f" of {there}, to which it redirects" if here != there else ""
    return f"expected JSON, got {media_type or 'something else'}{where}: a log-in page? Set {LOG_IN}"


def explain_status(status: int, phrase: str, said: str, uri: str) -> str:
    """Returns an explanation of an error that does not come from MLflow.

    Args:
        status: HTTP status.
        phrase: its reason phrase.
        said: the beginning of the body.
        uri: of the registry.
    """
    if WRONG_HOST in said:
        host = urllib.parse.urlsplit(uri).netloc.rpartition("@")[2]
        return (
            f"MLflow says 403 Invalid Host header: start its server with MLFLOW_SERVER_ALLOWED_HOSTS={host}, or "
            "--allowed-hosts"
        )
    if NO_CLIENT_CERTIFICATE.search(said):
        return WANTS_CLIENT
    if status in (401, 403):
        return f"{status}: it rejects the login; check {LOG_IN}"
    if status == 404:
        return "404 Not Found: no MLflow API there; is a path missing, as with mlflow server --static-prefix?"
    return f"{status} {phrase}"


def explain_tls(error: ssl.SSLError, variables: Sequence[str] = CA_VARIABLES) -> str:
    """Returns an explanation of a TLS failure.

    Args:
        error: of OpenSSL.
        variables: name a file of authorities; the first one set counts, else the first is suggested.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        said = f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
        if error.verify_code in NOT_BY_AUTHORITY:
            return said
        named = next((name for name in variables if os.environ.get(name)), None)
        if named is None:
            return f"{said}; set {variables[0]} to a file with its authority"
        return f"{said}; {named} names {os.environ[named]}, which has another authority"
    if "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return WANTS_CLIENT
    return f"TLS fails: {(error.reason or type(error).__name__).replace('_', ' ').lower()}"


def explain_mlflow(error: BaseException, uri: str) -> str | None:
    """Returns an explanation of TLS failures and foreign answers that MLflow's client raised; None for others.

    Args:
        error: raised by the client.
        uri: of the registry.
    """
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError) and type(cause).__module__ == "ssl":
            return explain_tls(cause)
    # Source: verify_rest_response in mlflow/utils/rest_utils.py.
    if "not in a valid JSON format" in str(error):
        return explain_page(uri, uri, "something else")
    found = re.search(r"failed with error code (\d{3}) != 200\. Response body: '(.*)", str(error), re.DOTALL)
    if found is None:
        return None
    if found[1] == "403" and FORBIDDEN in found[2]:
        is_model = re.search(r"/(registered-models|model-versions)/", str(error))
        return "403 Permission denied: this login needs EDIT on the " + (
            "registered model (MANAGE to remove an alias)" if is_model else "experiment"
        )
    return explain_status(int(found[1]), "", found[2], uri).strip()


def is_older(error: BaseException) -> bool:
    """Whether a server lacks the API called, as one older than MLflow's client."""
    return re.search(r"failed with error code 404 != 200\. Response body", str(error)) is not None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its chain of causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
