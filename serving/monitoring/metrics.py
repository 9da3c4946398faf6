"""The Prometheus metrics. Their labels are bounded: names, versions and classes of models, error codes.

Import this after `PROMETHEUS_MULTIPROC_DIR` is set: on its first import, prometheus_client decides whether to sum the
values of several workers.
"""

import os
from collections import Counter as Counter_
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from serving.errors import InternalError, ServingError
from serving.model.prepared import Manifest
from serving.monitoring.finished import Finished
from serving.monitoring.reserved import use_reserved_files

use_reserved_files()

MAX_CLASS_LABELS = 50
"""Further classes are counted as `other`, to bound the number of time series per version."""

LATENCY_BUCKETS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip

ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)

SIZE_BUCKETS_BYTES = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 10_485_760, 104_857_600)

_MODEL = ("model_name", "model_version")
_ROLE = (*_MODEL, "role")

predictions_total = Counter("model_predictions_total", "Rows predicted.", _ROLE)
errors_total = Counter(
    "model_prediction_errors_total",
    "Requests for predictions answered with an error.",
    (*_ROLE, "error_type", "status"),
)
latency_seconds = Histogram(
    "model_prediction_latency_seconds",
    "Seconds from the start of a request's processing to its answer; successful prediction requests only.",
    _ROLE,
    buckets=LATENCY_BUCKETS_SECONDS,
)
input_size_bytes = Histogram(
    "model_input_size_bytes",
    "Size of a request's body, decompressed; successful prediction requests only.",
    _ROLE,
    buckets=SIZE_BUCKETS_BYTES,
)
predicted_class_total = Counter(
    "model_predicted_class_total", "Rows by predicted class; classifiers only.", (*_ROLE, "predicted_class")
)
shadow_compared_total = Counter(
    "model_shadow_compared_total", "Rows that both the champion and the shadow predicted.", _MODEL
)
shadow_disagreements_total = Counter(
    "model_shadow_disagreements_total", "Of these, rows with a different label or value.", _MODEL
)
shadow_dropped_total = Counter(
    "model_shadow_dropped_total",
    "Requests not copied to the shadow because too many were waiting.",
    _MODEL,
)
batch_rows = Histogram(
    "model_batch_rows",
    "Rows per call that requests waited for, shared or not; calls made at once are not counted.",
    _MODEL,
    buckets=ROW_BUCKETS,
)
queue_wait_seconds = Histogram(
    "model_queue_wait_seconds",
    "Seconds from a request's arrival to the start of its model call.",
    _MODEL,
    buckets=LATENCY_BUCKETS_SECONDS,
)
active_requests = Gauge(
    "model_active_requests",
    "Prediction requests in progress: the maximum of the last tenth of a second.",
    multiprocess_mode="livesum",
)
loop_delay_seconds = Histogram(
    "model_loop_delay_seconds",
    "Delay of a worker's event loop in seconds, sampled ten times per second: the wait of requests before their "
    "processing starts.",
    buckets=LATENCY_BUCKETS_SECONDS,
)
model_info = Gauge(
    "model_info",
    "1 for each loaded model.",
    (*_MODEL, "runtime", "task", "run_id", "digest"),
    multiprocess_mode="livemax",
)
stale = Gauge(
    "model_registry_stale",
    "1 if the registry's current state is unknown or not followed; `/v1/models` has the reason.",
    multiprocess_mode="livemax",
)
registry_asked = Gauge(
    "model_registry_asked_timestamp_seconds",
    "Time of the registry's last answer, in seconds since 1970; 0 if it never answered. Later promotions are unseen.",
    multiprocess_mode="livemax",
)
model_ready = Gauge(
    "model_ready", "1 when every worker has a model that answers.", multiprocess_mode="livemin"
)


_loaded: Counter_[tuple[str, ...]] = Counter_()
"""How often each model is in memory: twice if it was loaded again before its last request ended."""


class _Observations:
    """Observations not yet added to a histogram."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = np.array(histogram._upper_bounds)  # noqa: SLF001  # it has no public way to add several at once
        self._values: list[float] = []
        self.add = self._values.append
        """A call for each request: nothing is counted yet."""

    def flush(self) -> None:
        if not self._values:
            return
        values = self._values.copy()
        del self._values[: len(values)]
        buckets = np.searchsorted(self._bounds, values, side="left")
        counts = np.bincount(buckets, minlength=len(self._bounds))
        _add(self._histogram, counts.tolist(), sum(values))


def _add(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Adds observations to a histogram, as counts by bucket and their sum: it has no public way to add several."""
    for bucket, count in zip(histogram._buckets, counts, strict=True):  # noqa: SLF001
        if count:
            bucket.inc(count)
    if any(counts):
        histogram._sum.inc(total)  # noqa: SLF001


SCORE = "model_prediction_score"


class ScoreMetrics:
    """The histogram of a role's scores. Its buckets are the model's own, so each has a histogram of its own."""

    def __init__(self, manifest: Manifest, role: str, bounds: Sequence[float]) -> None:
        histogram = Histogram(
            SCORE,
            "Probability of a binary classifier's second class, of another one's predicted class, or predicted value.",
            _ROLE,
            buckets=bounds,
            registry=None,
        )
        self._histogram = histogram.labels(manifest.name, manifest.version, role)
        self._bounds = np.array(bounds)

    def add(self, scores: npt.NDArray[np.float64]) -> None:
        """Counts scores of shape `(n_rows,)`; NaN is not counted."""
        scores = scores[~np.isnan(scores)]
        counts = np.bincount(
            np.searchsorted(self._bounds, scores, side="left"), minlength=len(self._bounds) + 1
        )
        _add(self._histogram, counts.tolist(), float(scores.sum()))


class RoleMetrics:
    """Metrics of one loaded model in one role.

    Counts are plain numbers until `flush`: writing to the metrics file costs more than a small model's prediction.
    `flush` is called several times per second, and for `/metrics`.
    """

    def __init__(self, manifest: Manifest, role: str) -> None:
        labels = (manifest.name, manifest.version, role)
        self._predictions = predictions_total.labels(*labels)
        self._latency = _Observations(latency_seconds.labels(*labels))
        self._body_bytes = _Observations(input_size_bytes.labels(*labels))
        classes = manifest.classes or []
        self._classes: dict[Any, Counter] = {
            label: predicted_class_total.labels(*labels, _class_name(label))
            for label in classes[:MAX_CLASS_LABELS]
        }
        self._other = (
            predicted_class_total.labels(*labels, "other") if len(classes) > MAX_CLASS_LABELS else None
        )
        self._n_rows = 0
        self._class_counts: dict[Any, int] = {}

    def observe(self, finished: Finished) -> None:
        """Counts an answered request."""
        output = finished.output
        self._n_rows += finished.inputs.n_rows
        self._latency.add(finished.ended - finished.started)
        self._body_bytes.add(finished.body_bytes)
        if self._classes and output.labels is not None and output.labels.ndim == 1:
            counts = self._class_counts
            for label in output.labels.tolist():
                counts[label] = counts.get(label, 0) + 1

    def flush(self) -> None:
        """Writes what was counted where `/metrics` of every worker finds it."""
        self._latency.flush()
        self._body_bytes.flush()
        n_rows, self._n_rows = self._n_rows, 0
        if n_rows:
            self._predictions.inc(n_rows)
        counts, self._class_counts = self._class_counts, {}
        for label, count in counts.items():
            counter = self._classes.get(label, self._other)
            if counter is not None:
                counter.inc(count)


class ModelMetrics:
    """Metrics of one loaded model; those by role are in `roles`."""

    def __init__(self, manifest: Manifest, runtime: str, *, counts_requests: bool) -> None:
        labels = (manifest.name, manifest.version)
        self._manifest = manifest
        self.counts_requests = counts_requests
        self._batch_rows = _Observations(batch_rows.labels(*labels))
        self._queue_wait = _Observations(queue_wait_seconds.labels(*labels))
        self._roles: dict[str, RoleMetrics] = {}
        self._info = (*labels, runtime, manifest.task, manifest.run_id or "", manifest.digest[:12])
        _loaded[self._info] += 1
        model_info.labels(*self._info).set(1)

    def role(self, name: str) -> RoleMetrics:
        """Returns the metrics of a role: `champion`, `challenger` or `shadow`."""
        if name not in self._roles:
            self._roles[name] = RoleMetrics(self._manifest, name)
        return self._roles[name]

    def waited(self, seconds: float) -> None:
        """Counts a request whose call starts."""
        if self.counts_requests:
            self._queue_wait.add(seconds)

    def called(self, n_rows: int) -> None:
        """Counts a call that requests waited for."""
        if self.counts_requests:
            self._batch_rows.add(n_rows)

    def compared(self, n_rows: int, n_different: int) -> None:
        """Counts rows that this shadow and the champion both predicted."""
        if self.counts_requests:
            labels = (self._manifest.name, self._manifest.version)
            shadow_compared_total.labels(*labels).inc(n_rows)
            shadow_disagreements_total.labels(*labels).inc(n_different)

    def dropped(self) -> None:
        """Counts a request not copied to this shadow."""
        if self.counts_requests:
            shadow_dropped_total.labels(self._manifest.name, self._manifest.version).inc()

    def close(self) -> None:
        """Writes the rest when the model is unloaded."""
        self.flush()
        _loaded[self._info] -= 1
        if not _loaded[self._info]:
            model_info.labels(*self._info).set(0)

    def flush(self) -> None:
        """Writes what was counted where `/metrics` of every worker finds it."""
        self._batch_rows.flush()
        self._queue_wait.flush()
        for role in self._roles.values():
            role.flush()


class ActiveRequests:
    """The number of prediction requests in progress in this worker."""

    def __init__(self) -> None:
        self.count = self._most = 0
        self._written = -1

    def enter(self) -> None:
        """Counts one more."""
        self.count += 1
        self._most = max(self._most, self.count)

    def leave(self) -> None:
        """Counts one fewer."""
        self.count -= 1

    def flush(self) -> None:
        """Writes the maximum since the last flush to where `/metrics` of every worker finds it."""
        most, self._most = self._most, self.count
        if most != self._written:
            self._written = most
            active_requests.set(most)


active = ActiveRequests()


def _class_name(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def count_error(model: tuple[str, str, str], error: ServingError, status: int) -> None:
    """Counts a request for predictions that was answered with an error; `model` is its name, version and role."""
    errors_total.labels(*model, error.code, str(status)).inc()


def forget_dead_workers() -> None:
    """Removes the gauges of ended workers; their counters and histograms still count."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return
    for file in Path(directory).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """Returns the metrics of all workers in Prometheus' text format.

    Raises:
        InternalError: their folder was deleted.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return generate_latest()
    if not Path(folder).is_dir():
        raise InternalError("the service's temporary folder was deleted while it runs; restart the service")
    forget_dead_workers()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
