"""Parts of the rows, by the values of a column: a model may be good on average and bad in one of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from serving.monitoring.quality.answers import Mask, to_text

MAX_SLICES = 20
"""Values with a slice of their own, the commonest first. Other values share one; other numbers are cut at quartiles."""

MISSING, OTHER = "missing", "other"


def slices(values: Sequence[Any]) -> Iterator[tuple[str, Mask]]:
    """Yields name and rows of each slice that has any, the largest first; of quartiles, in their order.

    Args:
        values: of the column.
    """
    texts = [to_text(value) for value in values]
    counts = Counter(text for text in texts if text is not None)
    if len(counts) > MAX_SLICES and all(map(_is_number, values)):
        yield from _quartiles(np.array([np.nan if value is None else float(value) for value in values]))
        return
    chosen = {text for text, _ in counts.most_common(MAX_SLICES)}
    names = [MISSING if text is None else text if text in chosen else OTHER for text in texts]
    array = np.array(names, dtype=object)
    for name, _ in Counter(names).most_common():
        yield name, np.asarray(array == name, dtype=np.bool_)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float, np.number)) and not isinstance(value, bool))


def _quartiles(numbers: Any) -> Iterator[tuple[str, Mask]]:
    present = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(present, [0, 0.25, 0.5, 0.75, 1]))
    positions = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    for position, (low, high) in enumerate(pairwise(edges)):
        mark = "to" if position == len(edges) - 2 else "to below"
        yield f"{low:.6g} {mark} {high:.6g}", np.isfinite(numbers) & (positions == position)
    if len(present) < len(numbers):
        yield MISSING, ~np.isfinite(numbers)
