"""The keeper's own metrics.

Import this after `PROMETHEUS_MULTIPROC_DIR` is set, as `serving.monitoring.metrics`.
"""

from prometheus_client import Counter, Gauge

from serving.monitoring.reserved import use_reserved_files

use_reserved_files()

truths_total = Counter("model_feedback_truths_total", "Truths received at /v1/feedback.")
unknown_total = Counter(
    "model_feedback_unknown_total", "Of these, truths about rows or keys that were not in the store yet."
)
failing = Gauge(
    "model_feedback_failing", "1 while the feedback store does not answer.", multiprocess_mode="livemax"
)
