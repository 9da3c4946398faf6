"""The statistics of rows against a reference, and which inputs and outputs have drifted: for `/v1/drift` and for reports."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.monitoring.drift.features import Counted, Feature
from serving.monitoring.drift.reference import Reference
from serving.monitoring.drift.statistics import (
    MIN_ROWS,
    PSI_LIMIT,
    Floats,
    chi_squared_limit,
    chi_squared_tail,
    false_discoveries,
    jensen_shannon,
    kolmogorov_smirnov,
    noise_factor,
    population_stability,
    shares,
    total_variation,
)

FEW_REFERENCE_ROWS = 100
"""Below this, even large shifts are within the noise."""


def compare(
    features: Sequence[Feature],
    counted: Sequence[Counted],
    numbers: Sequence[Floats],
    bin_names: Sequence[Sequence[str]],
) -> list[dict[str, Any]]:
    """Returns the statistics of each feature: those that have drifted first, then by index.

    A feature has drifted if its index is above `PSI_LIMIT`, if chance rarely makes it that large, and if there are
    enough rows. Of many features some would exceed their own limit of chance, so it is the Benjamini-Hochberg procedure
    that decides.

    Args:
        features: of the reference.
        counted: of each, its rows.
        numbers: of each, a sample of its finite numbers, ascending; empty if it has none.
        bin_names: of each, to show.
    """
    found = [_describe(*one) for one in zip(features, counted, numbers, bin_names, strict=True)]
    described = [one for one, _ in found]
    for one, is_shifted in zip(described, false_discoveries([p for _, p in found]), strict=True):
        one["has_drifted"] = bool(is_shifted and one["psi"] > PSI_LIMIT and one["rows"] >= MIN_ROWS)
    described.sort(key=lambda one: (not one["has_drifted"], -one["psi"]))
    return described


def note(reference: Reference, n_features: int, n_rows: int) -> str:
    """Returns what limits these statistics; empty if nothing does."""
    if not n_features:
        return "no input or output of this model can be compared: they are not numbers, booleans or text"
    if reference.n_rows < FEW_REFERENCE_ROWS:
        return (
            f"the reference has {reference.n_rows} row{'s' * (reference.n_rows != 1)}, too few to tell small shifts from "
            "chance; train.py logs a sample, or log reference.json with the model (docs/monitoring.md)"
        )
    if n_rows < MIN_ROWS:
        return f"not enough rows to tell drift: {n_rows} of {MIN_ROWS}"
    return ""


def _describe(
    feature: Feature, counted: Counted, numbers: Floats, bins: Sequence[str]
) -> tuple[dict[str, Any], float]:
    """Returns a feature's statistics, and the probability of its index by chance."""
    n_rows = int(counted.bins.sum())
    now, reference = shares(counted.bins), shares(feature.counts)
    degrees = len(feature.bins) - 1
    index = population_stability(now, reference) if n_rows else 0.0
    factor = noise_factor(n_rows, feature.n_reference) if n_rows and feature.n_reference else np.inf
    p_value = chi_squared_tail(index / factor, degrees)
    described: dict[str, Any] = {
        "feature": feature.name,
        "kind": "output" if feature.is_output else "input",
        "rows": n_rows,
        "psi": index,
        "psi_by_chance": chi_squared_limit(degrees) * factor if n_rows else None,
        "p_value": p_value,
        "js_distance": jensen_shannon(now, reference) if n_rows else 0.0,
        "total_variation": total_variation(now, reference) if n_rows else 0.0,
        "missing_ratio": _pair(counted.bins[0], n_rows, feature.counts[0], feature.n_reference),
    }
    if feature.known is not None:
        described["unknown_ratio"] = _pair(counted.n_unknown, n_rows, 0, feature.n_reference)
    if feature.edges:
        outside = counted.bins[1] + counted.bins[-1]
        described["out_of_range_ratio"] = _pair(outside, n_rows, 0, feature.n_reference)
        mean = counted.total / counted.n_finite if counted.n_finite else None
        described["mean"] = {"now": mean, "reference": float(np.mean(feature.sample))}
        if len(numbers):
            statistic, p = kolmogorov_smirnov(*(_rounded(one, feature) for one in (numbers, feature.sample)))
            described["ks"] = {"statistic": statistic, "p_value": p, "rows": len(numbers)}
    described["bins"] = [
        {
            "bin": name,
            "now": int(n) / n_rows if n_rows else None,
            "reference": m / feature.n_reference if feature.n_reference else None,
        }
        for name, n, m in zip(bins, counted.bins, feature.counts, strict=True)
    ]
    return described, p_value


def _rounded(numbers: npt.ArrayLike, feature: Feature) -> Floats:
    """Returns ascending numbers of an output without differences in last bits."""
    unit = feature.tolerance
    return np.asarray(numbers) if not unit else np.round(np.asarray(numbers) / unit) * unit


def _pair(now: float, n_rows: int, reference: int, n_reference: int) -> dict[str, float | None]:
    return {
        "now": float(now) / n_rows if n_rows else None,
        "reference": reference / n_reference if n_reference else None,
    }
