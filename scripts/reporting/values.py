"""The values of inputs and outputs in a table of the prediction log."""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from serving.model.schema import Schema
from serving.monitoring.drift.features import CATEGORY, PRESENCE, Binner, Counted, Feature, to_numbers
from serving.monitoring.drift.statistics import Floats
from serving.monitoring.prediction_log.rows import HASHED, INPUT
from serving.monitoring.prediction_log.selection import to_text

WHOLE_OUTPUTS = ("score", "label", "value")
"""Outputs that are a column of the log; the parts of others are in `OUTPUT`."""

OUTPUT = "output"


def column_of(feature: Feature, schema: Schema) -> str:
    """Returns the name of the log's column with a feature's values."""
    if feature.is_output:
        return feature.name if feature.name in WHOLE_OUTPUTS else OUTPUT
    return f"{INPUT}{schema.columns[feature.position].name}"


def hashed_column_of(feature: Feature, schema: Schema) -> str:
    """Returns the name that the column has if its values are hashed."""
    return f"{HASHED}{schema.columns[feature.position].name}"


def as_logged(feature: Feature) -> Feature:
    """Returns a feature with its categories as the log has them: labels are text there."""
    if not feature.is_output or feature.kind != CATEGORY or feature.name not in WHOLE_OUTPUTS:
        return feature
    known = None if feature.known is None else tuple(map(to_text, feature.known))
    return msgspec.structs.replace(feature, categories=tuple(map(to_text, feature.categories)), known=known)


Values = Any
"""Arrow's array, or NumPy's of objects for a part of `OUTPUT`."""


def whole_values(name: str, column: pa.ChunkedArray) -> pa.Array | list[list[Any]]:
    """Returns the values of a column; the results of `OUTPUT` as one flat list for each row."""
    array = column.combine_chunks()
    if name != OUTPUT:
        return array
    texts = ["null" if text is None else text for text in array.to_pylist()]
    return [list(_flatten(row)) for row in msgspec.json.decode(f"[{','.join(texts)}]")]


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _flatten(one)
    else:
        yield value


def values_of(feature: Feature, whole: pa.Array | list[list[Any]]) -> Values:
    """Returns a feature's values, one for each row, out of its column."""
    if isinstance(whole, list):
        at = feature.element
        values = np.empty(len(whole), dtype=object)
        values[:] = [row[at] if at < len(row) else None for row in whole]
        return values
    return _part_of_tensor(whole, feature.element) if pa.types.is_list(whole.type) else whole


def _part_of_tensor(array: pa.Array, element: int) -> pa.Array:
    n_rows, is_there = len(array), array.is_valid()
    while pa.types.is_list(array.type):
        array = array.flatten()
    n_present = is_there.true_count
    n_values = len(array) // max(n_present, 1)
    chosen = np.full(n_rows, -1)
    chosen[is_there.to_numpy(zero_copy_only=False)] = element + n_values * np.arange(n_present)
    return array.take(pa.array(chosen, mask=chosen < 0))


def count(feature: Feature, binner: Binner, values: Values, numbers: Floats) -> Counted:
    """Counts values into a feature's bins.

    Args:
        feature: as logged.
        binner: of the feature.
        values: of the rows.
        numbers: the values of a feature of numbers as doubles.
    """
    if isinstance(values, np.ndarray):
        return binner.count(values)
    if feature.kind == PRESENCE:
        return Counted(np.array([values.null_count, len(values) - values.null_count]))
    if feature.kind == CATEGORY:
        # Much faster than row by row: most columns have few distinct texts.
        found = values.value_counts()
        return binner.count_categories(
            zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
        )
    return binner.count(numbers)


def to_doubles(values: Values) -> Floats:
    """Returns values as doubles; missing ones, and texts that are no number, are NaN."""
    if isinstance(values, np.ndarray):
        return to_numbers(values)
    if pa.types.is_string(values.type):
        coded = values.dictionary_encode()
        of_texts = to_numbers(np.array([*coded.dictionary.to_pylist(), None], dtype=object))
        positions = coded.indices.fill_null(len(coded.dictionary))
        return np.asarray(of_texts[positions.to_numpy(zero_copy_only=False)])
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
