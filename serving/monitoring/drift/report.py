"""The drift of a model over the service's last window: `GET /v1/drift`."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.monitoring.drift.features import NUMBER, Counted, Feature
from serving.monitoring.drift.recorder import Recorder
from serving.monitoring.drift.statistics import (
    MIN_ROWS,
    PSI_LIMIT,
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
from serving.monitoring.drift.tally import N_SAMPLED, Floats, Tally

FEW_REFERENCE_ROWS = 100
"""Below this, even large shifts are within the noise."""


def describe_drift(recorder: Recorder, bin_names: list[list[str]]) -> dict[str, Any]:
    """Returns the statistics of each feature, largest index first, and the names of those that have drifted.

    A feature has drifted if its index is above `PSI_LIMIT`, if chance rarely makes it that large, and if there are
    enough rows. Of many features some would exceed their own limit of chance, so it is the Benjamini-Hochberg procedure
    that decides.

    Args:
        recorder: of the model.
        bin_names: to show, by feature.
    """
    tallies = recorder.tallies()
    now = time.monotonic()  # later than what was just counted
    cells = np.sum([tally.window(now) for tally in tallies], axis=0)
    n_rows, n_seen = Tally.n_rows(cells)
    sample = _merge([(tally.sample(now), Tally.n_rows(tally.window(now))[0]) for tally in tallies])
    column = 0
    features, p_values = [], []
    for index, feature in enumerate(recorder.features):
        numbers = np.empty(0)
        if feature.kind == NUMBER:
            numbers, column = np.sort(sample[:, column]), column + 1
        counted = tallies[0].of(index, cells)
        described, p_value = _describe(feature, counted, numbers[np.isfinite(numbers)], bin_names[index])
        features.append(described)
        p_values.append(p_value)
    for described, is_shifted in zip(features, false_discoveries(p_values), strict=True):
        is_large = described["psi"] > PSI_LIMIT and described["rows"] >= MIN_ROWS
        described["has_drifted"] = bool(is_shifted and is_large)
    features.sort(key=lambda one: (not one["has_drifted"], -one["psi"]))
    reference = recorder.reference
    return {
        "window_seconds": recorder.window_seconds,
        "rows": n_rows,
        "rows_answered": n_seen,
        "reference": {"rows": reference.n_rows, "is_sample": reference.is_sample},
        "drifted": [one["feature"] for one in features if one["has_drifted"]],
        "note": _note(recorder, n_rows),
        "features": features,
    }


def _note(recorder: Recorder, n_rows: int) -> str:
    """Returns what limits these statistics; empty if nothing does."""
    reference = recorder.reference
    if not recorder.features:
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
    feature: Feature, counted: Counted, numbers: Floats, bins: list[str]
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


def _merge(samples: list[tuple[Floats, int]]) -> Floats:
    """Returns one sample of all workers' rows: from each, as many as its part of all rows."""
    total = sum(n_rows for _, n_rows in samples)
    random = np.random.default_rng(0)
    parts = []
    for sample, n_rows in samples:
        wanted = min(len(sample), round(N_SAMPLED * n_rows / max(total, 1)))
        parts.append(sample[random.choice(len(sample), wanted, replace=False)] if wanted else sample[:0])
    return np.concatenate(parts)
