"""Estimates the accuracy of a version's rows without truth, and checks the method on its own labels."""

from typing import Any

import numpy as np
import pandas as pd

from scripts.evaluating.files import TIME
from scripts.evaluating.groups import Group
from serving.monitoring.quality.answers import Classified
from serving.monitoring.quality.estimate import estimate_accuracy, hold_out


def estimate(group: Group, known: Classified) -> dict[str, Any] | None:
    """Returns the estimate for rows without truth, and how well one for the newer half of the labels held.

    None if all rows have a truth, or there are too few labels or no probabilities.
    """
    found = estimate_accuracy(known, group.labels, group.confidences)
    if found is None:
        return None
    return {
        "rows": found.n_rows,
        "labels": found.n_labels,
        "accuracy": found.accuracy,
        "standard_error": found.standard_error,
        "check": _check(known, group.rows[group.is_known]),
    }


def _check(known: Classified, rows: pd.DataFrame) -> dict[str, Any] | None:
    """See `hold_out`."""
    order = np.arange(len(rows))
    if TIME in rows:
        order = rows[TIME].reset_index(drop=True).sort_values(kind="stable").index.to_numpy()
    return hold_out(known, order)
