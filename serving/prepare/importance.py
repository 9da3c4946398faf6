"""Which inputs matter to a model: how much its answers change when an input is shuffled."""

import time

import msgspec
import numpy as np
import numpy.typing as npt

from serving.model.schema import Inputs, take
from serving.monitoring.drift.features import Feature
from serving.monitoring.drift.reference import Reference
from serving.runtime import Output, Runtime

MANY_INPUTS = 50
"""Up to this many are all monitored by default, and need no order."""

N_ROWS = 200

TIME_SECONDS = 20.0


def order_by_importance(reference: Reference, runtime: Runtime, rows: Inputs) -> Reference:
    """Returns the reference with its most important inputs first, if it has many.

    Inputs beyond the time limit follow in their order; if the model refuses shuffled rows, the order stays.

    Source: permutation importance, Breiman, Random Forests, 2001; of the change of answers, as there are no labels.
    """
    inputs = [feature for feature in reference.features if not feature.is_output]
    if len(inputs) <= MANY_INPUTS:
        return reference
    rows = take(rows, 0, N_ROWS)
    until = time.monotonic() + TIME_SECONDS
    random = np.random.default_rng(0)
    try:
        before = runtime.predict(rows, {})
        changes = {
            feature: _change(before, runtime.predict(_shuffled(rows, feature, random), {}))
            for feature in inputs
            if time.monotonic() < until
        }
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # the order is a convenience
        return reference
    ordered = sorted(inputs, key=lambda feature: -changes.get(feature, 0.0))
    return msgspec.structs.replace(
        reference, features=(*ordered, *(one for one in reference.features if one.is_output))
    )


def _shuffled(rows: Inputs, feature: Feature, random: np.random.Generator) -> Inputs:
    column = rows.columns[feature.position].copy()
    if column.ndim == 1:
        random.shuffle(column)
    else:
        random.shuffle(column.reshape(len(column), -1)[:, feature.element])
    columns = list(rows.columns)
    columns[feature.position] = column
    return Inputs(tuple(columns), rows.n_rows)


def _change(before: Output, after: Output) -> float:
    """Returns the mean absolute difference of probabilities or values, or the share of other labels."""
    for one, other in ((before.probabilities, after.probabilities), (before.values, after.values)):
        if one is not None and other is not None and _are_numbers(one) and one.shape == other.shape:
            return float(np.abs(one - other).mean())
    if before.labels is None or after.labels is None:
        return 0.0
    return float(np.mean(before.labels != after.labels))


def _are_numbers(values: npt.NDArray[np.generic]) -> bool:
    return values.dtype.kind in "fiu"
