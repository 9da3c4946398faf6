"""What a model's files may do to the process that reads them.

`pickle.load` runs what the writer of the file put into it. Here a pickle is read as skops reads its files, by
name: of either we make only what is on our own list, whatever list the model brings along.
"""

import logging

from serving.errors import ModelRefused
from serving.model.hook import preprocessing_digest
from serving.model.prepared import Manifest
from serving.prepare.checks.gate import check_row_count
from serving.runtime.trusted import Trust
from serving.settings import Settings

log = logging.getLogger("serving.prepare")


def untrusted_types(names: list[str], own_types: frozenset[str], *, has_our_preprocessing: bool) -> list[str]:
    """Returns those of a file's types and functions that a model is not to be made of.

    Args:
        names: what it needs, such as `sklearn.tree._tree.Tree`.
        own_types: trusted, too: `SERVING_TRUSTED_TYPES`.
        has_our_preprocessing: whether the model was trained with the `preprocessing.py` that stands here.
    """
    trust = Trust(own_types, has_our_preprocessing)
    return sorted(name for name in names if not trust.covers(name))


def check_admission(manifest: Manifest, settings: Settings) -> None:
    """Refuses a prepared model that the settings, which may have changed since, do not allow.

    Raises:
        ModelRefused: what it is made of is not trusted any more, it was trained with another `preprocessing.py`, or
            it answers another number of results than rows.
    """
    check_code(manifest.writers_code, settings)
    check_preprocessing(manifest.preprocessing_sha256, settings)
    check_row_count(manifest, settings)
    check_types([name for name in manifest.own_types if name not in settings.trusted_type_names])


def check_code(why: str | None, settings: Settings) -> None:
    """Refuses a model that cannot be read without running what its writer put into it.

    Args:
        why: what `find_code` or `why_a_pickle_is_code` found.
        settings: of the service.

    Raises:
        ModelRefused: it is a pickle of more than is trusted, or code of its own loads it, and that is not allowed.
    """
    if why is None:
        return
    if not settings.allow_pickle:
        raise ModelRefused(
            f"it {why}, or set SERVING_ALLOW_PICKLE=true where all who may register models are "
            "trusted like those who may deploy"
        )


def check_preprocessing(digest: str | None, settings: Settings) -> str | None:
    """Refuses a model that was trained with another `preprocessing.py`, and would be fed other features.

    Args:
        digest: of the file that it was trained with; None where there was none.
        settings: of the service.

    Returns:
        What is wrong, where that is allowed; else None.

    Raises:
        ModelRefused: it is not allowed.
    """
    if digest is None:
        return None
    try:
        here = preprocessing_digest()
    except FileNotFoundError:
        here = None
    if digest == here:
        return None
    message = (
        f"the model was trained with another preprocessing.py (sha256 {digest[:12]}…, "
        f"here {here[:12] + '…' if here else 'there is none'})"
    )
    if settings.preprocessing_mismatch == "refuse":
        raise ModelRefused(f"{message}; train again, or set SERVING_PREPROCESSING_MISMATCH=warn")
    return message


def check_types(untrusted: list[str]) -> None:
    """Refuses a model of types that nobody trusts.

    Raises:
        ModelRefused: there are some; names them.
    """
    if untrusted:
        names = ",".join(untrusted)
        raise ModelRefused(
            f"it is made of types that are not trusted; if you trust them, set SERVING_TRUSTED_TYPES={names}"
        )
