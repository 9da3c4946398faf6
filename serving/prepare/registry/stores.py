"""Artifact stores: location of a version's files, and explanations of failures to fetch them."""

import contextlib
import os
import ssl
from typing import Any, NamedTuple

from serving.errors import ModelNotFound, ModelRefused, PrepareError
from serving.prepare.registry.access import CA_VARIABLES, LOG_IN, causes, explain_mlflow, explain_tls
from serving.prepare.registry.resolution import Resolved
from serving.settings import Settings


class Store(NamedTuple):
    """A kind of artifact store."""

    title: str
    requirements: str | None
    """The file in `requirements/` that installs its client."""
    endpoints: tuple[str, ...] = ()
    """Variables with its address; the first one set counts."""
    log_in: str = "its variables"
    """Variables of its login."""
    authorities: tuple[str, ...] = CA_VARIABLES
    """Variables that name a file of authorities; the first one set counts."""
    container: str = "bucket"
    """Its name for the outermost folder."""


S3 = Store(
    "S3",
    "serving",
    # Source: `_get_s3_client` in mlflow/store/artifact/s3_artifact_repo.py, then `ConfiguredEndpointProvider` in
    # botocore/configprovider.py.
    ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    # Source: `create_client` in botocore/session.py, and `_get_verify_value` in botocore/endpoint.py.
    ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
)
GCS = Store(
    "Google Cloud Storage",
    "gcs",
    ("STORAGE_EMULATOR_HOST",),
    "GOOGLE_APPLICATION_CREDENTIALS to a key file that can be read",
    ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
AZURE = Store(
    "Azure Storage",
    "azure",
    ("AZURE_STORAGE_CONNECTION_STRING",),
    "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY",
    container="container",
)
HDFS = Store("HDFS", None, container="folder")
TRACKING_SERVER = Store("the tracking server", None, log_in=LOG_IN, container="folder")
STORES = {
    "s3": S3,
    "r2": S3._replace(title="Cloudflare R2", endpoints=()),
    "b2": S3._replace(title="Backblaze B2", endpoints=()),
    "gs": GCS,
    **dict.fromkeys(("wasbs", "abfss"), AZURE),
    **dict.fromkeys(("hdfs", "viewfs"), HDFS),
    "mlflow-artifacts": TRACKING_SERVER,
}
"""By the scheme of an artifact URI. Source: mlflow.store.artifact.artifact_repository_registry."""

NO_CREDENTIALS = {
    # botocore
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    # Google; the second after a rejected request without credentials
    "DefaultCredentialsError",
    "InvalidOperation",
    # Azure
    "CredentialUnavailableError",
}
NO_CONTAINER = {"NoSuchBucket", "ContainerNotFound", "FilesystemNotFound"}
REFUSED = {"ExpiredToken", "InvalidToken", "RefreshError", "ClientAuthenticationError"}
"""In addition to status 401 and 403."""
UNREACHABLE = {
    # botocore
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyConnectionError",
    "ConnectionClosedError",
    # requests, Google
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "RetryError",
    # Azure
    "ServiceRequestError",
    "ServiceResponseError",
    "ServiceRequestTimeoutError",
}
PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
"""The first one set counts. Source: botocore/configprovider.py."""
WRONG_ENDPOINT = {"InvalidSchema", "MissingSchema", "InvalidURL"}
"""In requests; botocore raises ValueError."""


class Place(NamedTuple):
    """Location of a version's files."""

    uri: str
    """Empty if unknown."""

    @property
    def scheme(self) -> str:
        """The scheme of the URI; empty for a path."""
        return self.uri.partition(":")[0] if ":" in self.uri else ""

    @property
    def store(self) -> Store | None:
        """The kind of store; None for a path, Databricks and unknown ones."""
        return STORES.get(self.scheme)

    @property
    def variable(self) -> str | None:
        """The variable with the store's address, if set."""
        names = self.store.endpoints if self.store else ()
        if self.store is S3 and os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
            names = names[:1]
        return next((name for name in names if os.environ.get(name) or _is_empty(name)), None)

    def __str__(self) -> str:
        if self.store is None:
            return f" from {self.uri}" if self.uri else ""
        where = self.store.title
        if self.variable is None:
            where += f"; no {' or '.join(S3.endpoints[::2])} is set" if self.store is S3 else ""
        elif self.store is AZURE:
            where += f" by {self.variable}"  # it contains the account's key
        else:
            where += f" at {os.environ[self.variable] or 'no address'}, by {self.variable}"
        return f" from {self.uri} ({where})"


def _is_empty(name: str) -> bool:
    """Whether MLflow's variable is set but empty, which MLflow takes for an address; boto3 does not."""
    return name == S3.endpoints[0] and os.environ.get(name) == ""


def find_place(resolved: Resolved, settings: Settings) -> Place:
    """Returns the location of a version's files, as far as the registry has it."""
    from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

    with contextlib.suppress(Exception):
        uri = locate(resolved, settings)
        if uri.startswith("runs:/"):
            uri = RunsArtifactRepository.get_underlying_uri(uri, settings.tracking_uri)
        return Place(uri)
    return Place("")


def locate(resolved: Resolved, settings: Settings) -> str:
    """Returns the URI of a version's files.

    Raises: whatever the registry's client does.
    """
    from mlflow import MlflowClient

    client = MlflowClient(settings.tracking_uri, settings.registry)
    uri = resolved.unregistered_uri
    if uri is None:
        uri = client.get_model_version_download_uri(resolved.name, resolved.version)
    if uri.startswith("models:/"):  # since MLflow 3, for a model logged by a run
        uri = client.get_logged_model(uri.removeprefix("models:/")).artifact_location
    return str(uri)


def explain(error: Exception, resolved: Resolved, settings: Settings) -> PrepareError:
    """Returns the error for an exception of a store's client."""
    place = find_place(resolved, settings)
    store = place.store
    is_import = any(isinstance(one, ImportError) for one in causes(error))
    if store is not None and store is not TRACKING_SERVER and is_import:
        cure = (
            f".venv/bin/pip install -r requirements/{store.requirements}.txt, or build the image with STORES={store.requirements}"
            if store.requirements
            else "install libhdfs and Java, or let the tracking server serve the artifacts (mlflow server --serve-artifacts)"
        )
        return ModelRefused(f"its files are in {store.title}, whose client is not installed; {cure}")
    return ModelNotFound(
        f"the artifacts of {resolved.title} cannot be fetched{place}: "
        f"{why_not_fetched(error, place, settings)} (docs/stores.md)"
    )


def why_not_fetched(error: Exception, place: Place, settings: Settings) -> str:
    """Returns the problem and its remedy."""
    store, raised = place.store, _raised(error)
    name, code, status = type(raised).__name__, code_of(raised), status_of(raised)
    said = describe(error)
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError) and type(cause).__module__ == "ssl":
            return explain_tls(cause, store.authorities if store else CA_VARIABLES)
    if store is None:
        said = explain_mlflow(error, settings.tracking_uri) or said
        return f"{said}; check that it can be reached and read from here"
    if mistake := why_misconfigured(raised, place):
        return mistake
    if name in NO_CREDENTIALS or (name == "ClientAuthenticationError" and status is None):
        return f"{name}: no credentials were found; set {store.log_in}, or give this service an identity that may read there"
    if code in NO_CONTAINER or (store is GCS and status == 404):
        return f"{said}: the store does not have this {store.container}; {_check_store(place)}, or register the model again from the present location of its files"
    if _is_no_s3(raised, code, status):
        return f"expected an S3 store, got status {status} from another server; {_check_store(place)}"
    if status in (401, 403) or code in REFUSED or name in REFUSED:
        return (
            f"{said}: the store rejects the login; check {store.log_in}, and that it may list and read there"
        )
    if store is TRACKING_SERVER and status is not None:
        return f"the tracking server answers with status {status}; see its log and its access to the store"
    if name in UNREACHABLE:
        return f"{name}: nothing answers there; {_check_store(place)}, and that it can be reached from here"
    return f"{said}; check that it can be reached and read from here"


def why_misconfigured(raised: BaseException, place: Place) -> str:
    """Returns which variable of the store has an invalid value, and the remedy; empty if none."""
    name = type(raised).__name__
    if "Invalid endpoint" in str(raised) or name in WRONG_ENDPOINT:
        return f"expected an endpoint that begins with http:// or https://; correct {place.variable or 'endpoint_url in ~/.aws/config'}"
    if name == "ProfileNotFound":
        variable = next((one for one in PROFILES if os.environ.get(one)), PROFILES[-1])
        return f"there is no profile {os.environ.get(variable)!r} ({variable}); name one that ~/.aws/config or ~/.aws/credentials has, or add it"
    if isinstance(raised, ValueError) and str(raised).startswith("Connection string"):
        return "AZURE_STORAGE_CONNECTION_STRING is empty or malformed; copy it again from the account's access keys"
    if name == "AzureSigningError":
        return "the account's key is not base64; copy AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY again"
    return ""


def _check_store(place: Place) -> str:
    if place.variable is None:
        return "check that this is the right store"
    return f"check that {place.variable} names the right store"


def _is_no_s3(raised: BaseException, code: Any, status: int | None) -> bool:
    """Whether a server other than S3 answered a listing: S3 names each error, in XML."""
    is_listing = str(getattr(raised, "operation_name", "")).startswith("List")
    return is_listing and status is not None and status < 500 and not str(code or "").isalpha()


def _raised(error: BaseException) -> BaseException:
    """The exception of a store's client, which MLflow may have wrapped."""
    from mlflow.exceptions import MlflowException

    return next((one for one in causes(error) if not isinstance(one, MlflowException)), error)


def code_of(raised: BaseException) -> Any:
    """Returns the store's code of an error; None if it has none."""
    response = getattr(raised, "response", None)
    if isinstance(response, dict):  # botocore
        return response.get("Error", {}).get("Code")
    return (
        getattr(raised, "error_code", None)  # Azure, Databricks and MLflow
        or getattr(response, "status_code", None)  # requests
        or getattr(raised, "code", None)  # Google
    )


def status_of(raised: BaseException) -> int | None:
    """Returns the HTTP status of a store's answer; None without an answer."""
    response = getattr(raised, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(raised, "code", None)
    return int(status) if isinstance(status, int) else None


def describe(error: Exception) -> str:
    """Returns the type and code of a store client's exception: `ClientError AccessDenied`."""
    raised = _raised(error)
    name, code = type(raised).__name__, code_of(raised)
    return f"{name} {code}" if isinstance(code, int | str) and code and code != name else name
