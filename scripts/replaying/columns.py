"""Columns of the log → the cells that callers sent."""

import base64
from collections.abc import Collection
from typing import Any

import msgspec
import pyarrow as pa

from scripts.lifecycle import LifecycleError
from serving.codecs.json_answers import array_to_json
from serving.model.schema import Column, Kind, Schema
from serving.monitoring.prediction_log.rows import HASHED, INPUT, JSON, field_of

MAX_NAMES = 10
"""Of columns in a message."""


def to_cells(values: pa.ChunkedArray, column: Column) -> list[Any]:
    """Returns a logged input as the values of a request in JSON; None if missing.

    Args:
        values: a column of the log.
        column: of the signature of the version that was asked.
    """
    if column.type.kind is Kind.DATETIME:
        return array_to_json(values.to_numpy())
    cells: list[Any] = values.to_pylist()
    if column.type.kind is Kind.BINARY:
        return [None if cell is None else base64.b64encode(cell).decode() for cell in cells]
    if field_of(column, is_hashed=False).type == JSON:
        return [None if cell is None else msgspec.json.decode(cell) for cell in cells]
    return cells


def check_columns(names: Collection[str], champion: Schema, candidate: Schema, version: str) -> None:
    """Checks that the log has the inputs of the candidate that callers sent to the champion.

    Args:
        names: of the log's columns.
        champion: the schema of the version that answered.
        candidate: that of the version to ask.
        version: its number.

    Raises:
        LifecycleError: some are left out of the log, or hashed.
    """
    shared = [name for name in candidate.names if name in set(champion.names)]
    missing = [name for name in shared if f"{INPUT}{name}" not in names]
    if not missing:
        return
    hashed = [name for name in missing if f"{HASHED}{name}" in names]
    excluded = [name for name in missing if name not in hashed]
    reasons = [
        f"{_list(of)} ({setting})"
        for of, setting in ((excluded, "SERVING_LOG_EXCLUDE"), (hashed, "SERVING_LOG_HASH"))
        if of
    ]
    raise LifecycleError(
        f"version {version} cannot be replayed: the prediction log lacks the values of its inputs {' and '.join(reasons)}"
    )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(map(repr, names[:MAX_NAMES])) + more
