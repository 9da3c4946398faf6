"""A model's outputs, as the log's messages have them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.codecs.json_answers import array_to_json
from serving.monitoring.prediction_log.selection import to_json, to_text
from serving.runtime import Output

Values = npt.NDArray[Any]


class Outputs(NamedTuple):
    """The outputs of some requests, by row; see `Rows`."""

    classes: tuple[str, ...]
    labels: list[str | None] | None
    probabilities: bytes | None
    values: bytes | None
    others: list[str | None] | None


def encode_outputs(
    outputs: list[Output | None],
    wholes: list[Output],
    n_rows: list[int],
    first_rows: list[int],
    classes: tuple[str, ...],
) -> Outputs:
    """Returns the outputs of requests.

    Args:
        outputs: of their rows; None if the model has not returned one result per row.
        wholes: all that the model has returned.
        n_rows: of the requests, or of these parts of them.
        first_rows: position of a part in its request.
        classes: of the model.
    """
    probabilities = [None if output is None else output.probabilities for output in outputs]
    width = next((array.shape[1] for array in probabilities if array is not None), 0)
    return Outputs(
        classes if len(classes) == width else tuple(map(str, range(width))),
        _labels(outputs, n_rows),
        _numbers(probabilities, n_rows, width),
        _numbers([_plain_values(output) for output in outputs], n_rows, 1),
        _others(outputs, n_rows, first_rows, wholes),
    )


def _labels(outputs: list[Output | None], n_rows: list[int]) -> list[str | None] | None:
    found: list[str | None] = []
    is_there = False
    for output, n in zip(outputs, n_rows, strict=True):
        if output is None or output.labels is None or output.labels.ndim > 1:
            found += [None] * n
        else:
            is_there = True
            found += map(to_text, array_to_json(output.labels))
    return found if is_there else None


def _plain_values(output: Output | None) -> Values | None:
    values = output.values if output is not None else None
    return values if values is not None and values.ndim == 1 and values.dtype.kind in "fiub" else None


def _numbers(arrays: list[Values | None], n_rows: list[int], width: int) -> bytes | None:
    """Returns the memory of doubles, `width` for each row."""
    if not any(array is not None for array in arrays):
        return None
    return b"".join(
        [
            (np.full(n * width, np.nan) if array is None else array.astype(np.float64, copy=False)).tobytes()
            for array, n in zip(arrays, n_rows, strict=True)
        ]
    )


def _others(
    outputs: list[Output | None], n_rows: list[int], first_rows: list[int], wholes: list[Output]
) -> list[str | None] | None:
    """Returns outputs that are neither one label nor one number: by row, or all in the request's first row."""
    found: list[str | None] = []
    for output, n, first_row, whole in zip(outputs, n_rows, first_rows, wholes, strict=True):
        if output is None:
            first = next(a for a in (whole.labels, whole.values, whole.probabilities) if a is not None)
            found += [to_json(array_to_json(first)) if first_row == 0 else None, *[None] * (n - 1)]
        elif output.labels is not None and output.labels.ndim > 1:
            found += map(to_json, array_to_json(output.labels))
        elif output.values is not None and _plain_values(output) is None:
            found += map(to_json, array_to_json(output.values))
        else:
            found += [None] * n
    return found if any(one is not None for one in found) else None
