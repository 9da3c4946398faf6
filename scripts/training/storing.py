"""Errors of the artifact store that a trained model's files are written to."""

from collections.abc import Iterator
from contextlib import contextmanager

from scripts.lifecycle import LifecycleError
from serving.prepare.registry.access import causes
from serving.prepare.registry.stores import TRACKING_SERVER, Place, code_of

CLIENTS = {"azure", "boto3", "botocore", "google"}
"""Packages that raise only what a store, or the login there, is about."""


@contextmanager
def storing(uri: str) -> Iterator[None]:
    """In the block, errors of the store's client name the store instead of the registry.

    Args:
        uri: of the folder that is written.

    Raises:
        LifecycleError: the store's client has raised one of them.
    """
    try:
        yield
    except Exception as error:
        raised = [one for one in causes(error) if type(one).__module__.partition(".")[0] in CLIENTS]
        is_download = "while downloading" in str(error)  # MLflow keeps only the text of these
        store = Place(uri).store
        if store is None or store is TRACKING_SERVER or not (raised or is_download):
            raise
        codes = [*filter(None, map(code_of, raised)), *(type(one).__name__ for one in raised)]
        said = codes[0] if codes else "they cannot be read back"
        raise LifecycleError(
            f"{store.title} did not take the model's files ({uri}): {said}; set {store.log_in}, or give this process an "
            "identity, that may write, list and read there (docs/stores.md)"
        ) from None
