"""The log's own metrics, imported only if it is on.

Import this after `PROMETHEUS_MULTIPROC_DIR` is set, as `serving.monitoring.metrics`.
"""

from prometheus_client import Counter, Gauge

from serving.monitoring.reserved import use_reserved_files

use_reserved_files()

QUEUE, ENCODING, DISK = "queue", "encoding", "disk"

rows_total = Counter("model_prediction_log_rows_total", "Rows written to the prediction log.")
dropped_rows_total = Counter(
    "model_prediction_log_dropped_rows_total",
    "Rows missing in the prediction log: the queue was full, the rows have no form in the log, or the disk took nothing.",
    ("reason",),
)
for _reason in (QUEUE, ENCODING, DISK):
    dropped_rows_total.labels(_reason)  # the first increase would be lost without a 0 before it
failing = Gauge(
    "model_prediction_log_failing",
    "1 while the prediction log's folder cannot be written.",
    multiprocess_mode="livemax",
)
size_bytes = Gauge(
    "model_prediction_log_bytes", "Size of the prediction log's folder.", multiprocess_mode="livemostrecent"
)
