"""The gate: the checks that a version must pass before any request reaches it."""

import json
import logging
import math
import re
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.batching.policy import Costs
from serving.errors import ModelRefused
from serving.model.digests import DIGEST_TAG
from serving.model.prepared import Manifest
from serving.model.schema import Schema
from serving.prepare.checks.compatibility import find_incompatibilities
from serving.prepare.registry.resolution import FORCE_TAG, is_forced
from serving.runtime import Description, Output, count_output
from serving.settings import Settings

log = logging.getLogger("serving.prepare")

COMPARED_LIBRARIES = ("scikit-learn", "xgboost", "lightgbm", "numpy", "pandas", "scipy", "skops")
"""Libraries whose version may affect a model's answers."""

NEGLIGIBLE_SECONDS = 0.001
"""Up to this time a row is never too slow."""

_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)")


def check_digest(found: str, recorded: str | None) -> None:
    """Compares the digest of the files with the one recorded at registration.

    Raises:
        ModelRefused: they differ.
    """
    if recorded is None:
        log.debug("the version has no tag %s to compare the files with", DIGEST_TAG)  # train.py sets it
    elif found != recorded:
        raise ModelRefused(
            f"the files have changed since registration: their digest is {found[:12]}…, but the tag "
            f"{DIGEST_TAG} says {recorded[:12]}…; find out who changed them, and register the model again"
        )


def check_libraries(requirements: Path, mode: Literal["strict", "minor", "off"]) -> None:
    """Compares the library versions that a model was logged with to the installed ones.

    Args:
        requirements: the model's requirements.txt.
        mode: `strict` requires the same version, `minor` the same major and minor, `off` accepts any.

    Raises:
        ModelRefused: another version is installed, or none.
    """
    different = [] if mode == "off" else differing_libraries(requirements, mode)
    if different:
        raise ModelRefused(
            f"it was logged with other library versions than are installed here: {', '.join(different)}; train it with "
            f"the installed ones, or set SERVING_LIBRARY_VERSIONS ({mode} now)"
        )


def differing_libraries(requirements: Path, mode: Literal["strict", "minor"] = "minor") -> list[str]:
    """Returns the libraries whose installed version differs from the model's: `scikit-learn 1.2.2 (here 1.9.1)`."""
    if not requirements.is_file():
        return []
    pinned = dict(_PINNED.findall(requirements.read_text(errors="replace")))
    different = []
    for name in COMPARED_LIBRARIES:
        wanted = pinned.get(name)
        if wanted is None:
            continue
        here = _installed(name)
        if here is None or not _agree(wanted, here, mode):
            different.append(f"{name} {wanted} (here {here or 'none'})")
    return different


def _installed(name: str) -> str | None:
    for candidate in (name, f"{name}-cpu"):
        try:
            return installed_version(candidate)
        except PackageNotFoundError:
            continue
    return None


def _agree(wanted: str, here: str, mode: str) -> bool:
    return wanted == here if mode == "strict" else wanted.split(".")[:2] == here.split(".")[:2]


def check_signature(old: Schema | None, new: Schema, tags: dict[str, str]) -> None:
    """Compares the signature with the current version's.

    Raises:
        ModelRefused: valid requests would be rejected, and the version is not forced.
    """
    found = find_incompatibilities(old, new) if old is not None else []
    if not found:
        return
    if is_forced(tags):
        log.warning("requests of the current version would be rejected: %s (forced)", "; ".join(found))
        return
    raise ModelRefused(
        f"it cannot take the requests of the current version: {'; '.join(found)}; once callers have adapted, "
        f"promote it with scripts/promote.py --force, or tag the version {FORCE_TAG}=true"
    )


OTHER_ROWS = (
    "; expected one per row; if this is intended, as for a forecast, log it with a signature whose outputs are a "
    "tensor of that length, or set SERVING_ANSWER_ROWS=any"
)
"""What to do about a model that does not return one result per row."""


def has_own_number_of_results(outputs: str | None) -> bool:
    """Whether a signature's outputs, as MLflow writes them, are a tensor of fixed length."""
    specs = json.loads(outputs or "[]")
    shapes = [spec["tensor-spec"]["shape"] for spec in specs if spec.get("type") == "tensor"]
    return any(shape and shape[0] != -1 for shape in shapes)


def check_row_count(manifest: Manifest, settings: Settings) -> None:
    """Refuses a prepared model that did not return one result per row.

    Raises:
        ModelRefused: neither its signature nor the settings allow that.
    """
    is_meant = settings.answer_rows == "any" or has_own_number_of_results(manifest.outputs)
    if not manifest.is_per_row and not is_meant:
        raise ModelRefused(f"the model returned more or fewer results than rows{OTHER_ROWS}")


def check_output(output: Output, description: Description) -> None:
    """Checks a model's output for rows that it must be able to answer.

    Raises:
        ModelRefused: it has numbers that are not finite, a wrong shape, or unknown classes.
    """
    n_rows = count_output(output)
    if output.values is not None:
        _check_finite("values", output.values)
    if output.probabilities is not None:
        n_classes = len(description.classes or [])
        if output.probabilities.shape != (n_rows, n_classes):
            raise ModelRefused(
                f"its probabilities have shape {output.probabilities.shape}, for {n_rows} rows and {n_classes} classes; "
                "fit it on rows of every class, so that classes_ has one per column"
            )
        _check_finite("probabilities", output.probabilities)
        if (output.probabilities < 0).any() or (output.probabilities > 1 + 1e-6).any():
            raise ModelRefused(
                "its probabilities are not all between 0 and 1; calibrate its predict_proba, or log a model that has "
                "only predict"
            )
    if output.labels is not None and description.classes is not None and output.labels.ndim == 1:
        unknown = set(map(_plain, output.labels.tolist())) - set(map(_plain, description.classes))
        if unknown:
            raise ModelRefused(
                f"it predicts {len(unknown)} label(s) that are not among its classes; its classes_ must list what its "
                "predict returns"
            )


def _plain(label: Any) -> str:
    return str(label)


def _check_finite(what: str, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind in "fc":
        bad = int((~np.isfinite(array)).sum())
    elif array.dtype.kind == "O":
        bad = sum(1 for value in array.flat if isinstance(value, float) and not math.isfinite(value))
    else:
        return
    if bad:
        raise ModelRefused(
            f"{bad} of its {array.size} {what} for its own rows are not finite; check whether its training diverged, "
            "or its example has values that it was not trained on"
        )


def check_costs(old: Costs | None, new: Costs, limit: float) -> None:
    """Compares the cost of calls with the current version's, both measured here.

    Raises:
        ModelRefused: one row, or each of many, is more than `limit` times slower.
    """
    if old is None:
        return
    for n_rows in (1, 64):
        rows = "a row" if n_rows == 1 else f"a row in a batch of {n_rows}"
        check_slowdown(rows, old.estimate(n_rows) / n_rows, new.estimate(n_rows) / n_rows, limit)


def check_slowdown(what: str, before: float, after: float, limit: float) -> None:
    """Compares the seconds that the current version takes with those of the new one.

    Raises:
        ModelRefused: it is more than `limit` times slower.
    """
    if after > NEGLIGIBLE_SECONDS and after > limit * before:
        raise ModelRefused(
            f"it is too slow: {what} takes {after * 1e3:.3g} ms, {after / before:.0f} times slower than with the "
            f"current version (SERVING_MAX_SLOWDOWN, {limit:g}); make the model smaller, or raise the limit"
        )
