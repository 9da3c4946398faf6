"""What a model's files may do to the process that loads them.

`pickle.load` runs whatever the author of the file put into it. Here a pickle is read as skops reads its files, by
name: from either only types on our own list are created, whatever list the model comes with.
"""

import logging

from serving.errors import ModelRefused
from serving.model.hook import find_mismatch
from serving.model.prepared import Manifest
from serving.prepare.checks.gate import check_row_count
from serving.runtime.trusted import Trust
from serving.settings import Settings

log = logging.getLogger("serving.prepare")


def untrusted_types(names: list[str], own_types: frozenset[str], *, has_our_preprocessing: bool) -> list[str]:
    """Returns those of a file's types and functions that are not trusted.

    Args:
        names: what it needs, such as `sklearn.tree._tree.Tree`.
        own_types: trusted in addition: `SERVING_TRUSTED_TYPES`.
        has_our_preprocessing: whether the model was trained with this service's `preprocessing.py`.
    """
    trust = Trust(own_types, has_our_preprocessing)
    return sorted(name for name in names if not trust.covers(name))


def check_admission(manifest: Manifest, settings: Settings) -> None:
    """Refuses a prepared model that the current settings do not allow.

    Raises:
        ModelRefused: its types are no longer trusted, it runs its author's code, it was trained with another
            `preprocessing.py`, or it does not return one result per row.
    """
    check_code(manifest.writers_code, settings)
    check_preprocessing(manifest.preprocessing_sha256, settings)
    check_row_count(manifest, settings)
    check_types([name for name in manifest.own_types if name not in settings.trusted_type_names])


def check_code(why: str | None, settings: Settings) -> None:
    """Refuses a model that cannot be loaded without running its author's code.

    Args:
        why: what in its files is its author's code; see `Manifest`.
        settings: of the service.

    Raises:
        ModelRefused: there is such code, and `allow_pickle` is off.
    """
    if why is None:
        return
    if not settings.allow_pickle:
        raise ModelRefused(
            f"it {why}, or set SERVING_ALLOW_PICKLE=true if everybody who may register models is trusted to run code "
            "here"
        )


def check_preprocessing(digest: str | None, settings: Settings) -> str | None:
    """Refuses a model that was trained with another `preprocessing.py`, and would get other features.

    Args:
        digest: of the file that it was trained with; None if there was none.
        settings: of the service.

    Returns:
        The mismatch if it is allowed, as the end of a sentence; else None.

    Raises:
        ModelRefused: a mismatch is not allowed.
    """
    mismatch = find_mismatch(digest)
    if mismatch is not None and settings.preprocessing_mismatch == "refuse":
        raise ModelRefused(
            f"it {mismatch}; put the same file beside the service, train again, or set "
            "SERVING_PREPROCESSING_MISMATCH=warn"
        )
    return mismatch


def check_types(untrusted: list[str]) -> None:
    """Refuses a model of untrusted types.

    Raises:
        ModelRefused: there are some; names them.
    """
    if untrusted:
        names = ",".join(untrusted)
        raise ModelRefused(
            f"it contains untrusted types; if you trust them, set SERVING_TRUSTED_TYPES={names}"
        )
