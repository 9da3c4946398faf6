"""What became of new versions, counted by the sync process."""

from prometheus_client import Counter

from serving.monitoring.reserved import use_reserved_files

use_reserved_files()

SWAPPED, REFUSED, FAILED = "swapped", "refused", "failed"

swaps_total = Counter(
    "model_swaps_total",
    "New versions: swapped in by all workers, refused by the gate, or failed to be prepared or loaded (each attempt).",
    ("model_name", "outcome"),
)


class Swaps:
    """The outcomes of one registered model's versions."""

    def __init__(self, model_name: str) -> None:
        # From the start, so that the first one is an increase.
        self._counters = {
            outcome: swaps_total.labels(model_name, outcome) for outcome in (SWAPPED, REFUSED, FAILED)
        }

    def count(self, outcome: str) -> None:
        """Counts one."""
        self._counters[outcome].inc()
