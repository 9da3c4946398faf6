"""The counts of drift in Prometheus' text format.

Written here, not by prometheus_client: a version has a thousand time series, whose labels never change.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from serving.model.prepared import Manifest
from serving.monitoring.drift.recorder import Recorder
from serving.monitoring.drift.statistics import chi_squared_limit, shares

METRICS = {
    "model_feature_bin_total": (
        "counter",
        "Rows by bin of an input or output; the bins are frozen with the model.",
    ),
    "model_feature_unknown_total": ("counter", "Rows with a category that the reference does not have."),
    "model_feature_mean": ("gauge", "Mean of a numeric input or output over the window of /v1/drift."),
    "model_feature_reference_share": (
        "gauge",
        "Share of a bin in the reference; half a row is added to each bin.",
    ),
    "model_feature_reference_rows": ("gauge", "Rows of the reference."),
    "model_feature_chi_squared_limit": (
        "gauge",
        "Value that a chi-squared of bins - 1 degrees exceeds with a probability of 0.001; times 1/rows + 1/reference "
        "rows it is the population stability index that chance makes.",
    ),
}
"""Type and help by name."""

LABELS = ("model_name", "model_version", "kind", "feature")
"""Of each; `model_feature_bin_total` and `model_feature_reference_share` also have `bin`."""


class Exposition:
    """The lines of one loaded model."""

    def __init__(self, manifest: Manifest, recorder: Recorder, *, shows_values: bool) -> None:
        """Prepares the labels.

        Args:
            manifest: of the model.
            recorder: its counts.
            shows_values: whether bins are named by the reference's values; else by their position.
        """
        self._recorder = recorder
        model = f'model_name="{escape(manifest.name)}",model_version="{escape(manifest.version)}"'
        self._labels = []
        self._bins = []
        self.bin_names: list[list[str]] = []
        """Of each feature."""
        self._fixed: dict[str, list[str]] = {name: [] for name in METRICS}
        for feature in recorder.features:
            kind = "output" if feature.is_output else "input"
            labels = f'{model},kind="{kind}",feature="{escape(feature.name)}"'
            names = feature.bin_names(shows_values=shows_values)
            self.bin_names.append(names)
            self._labels.append(labels)
            bins = [f'{labels},bin="{escape(name)}"' for name in names]
            self._bins.append([f"model_feature_bin_total{{{one}}} " for one in bins])
            for one, share in zip(bins, shares(feature.counts), strict=True):
                self._fix("model_feature_reference_share", one, float(share))
            self._fix("model_feature_reference_rows", labels, feature.n_reference)
            self._fix("model_feature_chi_squared_limit", labels, chi_squared_limit(len(feature.bins) - 1))

    def _fix(self, name: str, labels: str, value: float) -> None:
        self._fixed[name].append(f"{name}{{{labels}}} {value!r}")

    def lines(self) -> dict[str, list[str]]:
        """Returns the samples by metric."""
        tallies = self._recorder.tallies()
        now = time.monotonic()
        totals = np.sum([tally.totals for tally in tallies], axis=0)
        window = np.sum([tally.window(now) for tally in tallies], axis=0)
        lines = dict(self._fixed)
        bins, unknown, means = [], [], []
        for index, (feature, labels) in enumerate(zip(self._recorder.features, self._labels, strict=True)):
            counted = tallies[0].of(index, totals)
            bins += [f"{start}{n}" for start, n in zip(self._bins[index], counted.bins.tolist(), strict=True)]
            if feature.known is not None:
                unknown.append(f"model_feature_unknown_total{{{labels}}} {counted.n_unknown}")
            recent = tallies[0].of(index, window)
            if recent.n_finite:
                means.append(f"model_feature_mean{{{labels}}} {recent.total / recent.n_finite!r}")
        return lines | {
            "model_feature_bin_total": bins,
            "model_feature_unknown_total": unknown,
            "model_feature_mean": means,
        }


class Lines(Protocol):
    """Has samples by metric."""

    def lines(self) -> dict[str, list[str]]:
        """Returns them."""


def exposition(models: Iterable[Lines]) -> bytes:
    """Returns the text of all loaded models."""
    return "".join(_text([model.lines() for model in models])).encode()


def _text(all_lines: list[dict[str, list[str]]]) -> Iterator[str]:
    for name, (kind, meaning) in METRICS.items():
        samples = [line for lines in all_lines for line in lines[name]]
        if samples:
            yield f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"
            yield "\n".join(samples) + "\n"


def escape(value: str) -> str:
    """Returns a label's value as it is written. Source: Prometheus' text format."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
