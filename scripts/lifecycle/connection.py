"""The scripts' connection to the registry through MLflow's client: with timeouts, and with errors in one line."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.lifecycle import LifecycleError
from serving.errors import PrepareError
from serving.prepare.registry.access import bounds, causes, explain_mlflow, log_in
from serving.redaction import redact
from serving.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

NO_ALIASES = "the registry is older than MLflow 2.3, and has no aliases"


def connect(settings: Settings) -> "MlflowClient":
    """Returns a client of the registry, which has answered one request within seconds.

    Raises:
        LifecycleError: it did not answer, or refused; names the URI without credentials.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    import mlflow

    quiet_mlflow()
    mlflow.set_tracking_uri(settings.tracking_uri)
    trouble = f"the registry {redact(settings.registry)} does not answer"
    try:
        with short_requests(settings), one_line(trouble, settings.registry):
            client = mlflow.MlflowClient(registry_uri=settings.registry)
            client.search_registered_models(max_results=1)
    except PrepareError as error:
        raise LifecycleError(str(error)) from None
    return client


@contextmanager
def one_line(trouble: str, uri: str = "") -> Iterator[None]:
    """Turns any error of MLflow's client, a database or the artifact store's client into one line.

    Args:
        trouble: what failed; it precedes the reason.
        uri: of the registry, if that is queried.

    Raises:
        LifecycleError: one of them raised an error.
    """
    try:
        yield
    except (LifecycleError, PrepareError):
        raise
    except Exception as error:  # noqa: BLE001  # each store's client has its own errors
        raise LifecycleError(f"{trouble}: {reason(error, uri)}") from None


@contextmanager
def short_requests(settings: Settings) -> Iterator[None]:
    """Logs MLflow's client in with the current token; in the block, its HTTP requests time out within seconds.

    Raises:
        RegistryUnreachable: the token cannot be read.
    """
    os.environ.update(log_in(settings))
    ours = bounds(settings)
    os.environ.update(ours)
    try:
        yield
    finally:
        for variable in ours:
            del os.environ[variable]


def quiet_mlflow() -> None:
    """Keeps MLflow, alembic and their warnings off the terminal; errors still come as exceptions."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"mlflow|skops|sklearn")


def reason(error: BaseException, uri: str = "") -> str:
    """Returns why a request failed, in one line; for the network, the socket's error.

    Args:
        error: that was raised.
        uri: of the registry, if that was queried.
    """
    explained = explain_mlflow(error, uri)
    if explained is not None:
        return explained
    for cause in causes(error):
        if isinstance(cause, OSError) and type(cause).__module__ in ("builtins", "socket"):
            return cause.strerror or str(cause) or type(cause).__name__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
