"""The drift of a model over the service's last window: `GET /v1/drift`."""

import time
from typing import Any

import numpy as np

from serving.monitoring.drift.comparison import compare, note
from serving.monitoring.drift.features import NUMBER
from serving.monitoring.drift.recorder import Recorder
from serving.monitoring.drift.tally import N_SAMPLED, Floats, Tally


def describe_drift(recorder: Recorder, bin_names: list[list[str]]) -> dict[str, Any]:
    """Returns the statistics of each feature, see `compare`, and the names of those that have drifted.

    Args:
        recorder: of the model.
        bin_names: to show, by feature.
    """
    tallies = recorder.tallies()
    now = time.monotonic()  # later than what was just counted
    cells = np.sum([tally.window(now) for tally in tallies], axis=0)
    n_rows, n_seen = Tally.n_rows(cells)
    sample = _merge([(tally.sample(now), Tally.n_rows(tally.window(now))[0]) for tally in tallies])
    columns = iter(sample.T)
    numbers = [next(columns) if feature.kind == NUMBER else np.empty(0) for feature in recorder.features]
    features = compare(
        recorder.features,
        [tallies[0].of(index, cells) for index in range(len(recorder.features))],
        [np.sort(one[np.isfinite(one)]) for one in numbers],
        bin_names,
    )
    reference = recorder.reference
    return {
        "window_seconds": recorder.window_seconds,
        "rows": n_rows,
        "rows_answered": n_seen,
        "reference": {"rows": reference.n_rows, "is_sample": reference.is_sample},
        "drifted": [one["feature"] for one in features if one["has_drifted"]],
        "note": note(reference, len(features), n_rows),
        "features": features,
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
