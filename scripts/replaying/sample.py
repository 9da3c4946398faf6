"""Chooses the logged requests that a version is asked again: a random sample, the same at each run."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from scripts.evaluating.log import explaining
from scripts.lifecycle import LifecycleError
from serving.monitoring.prediction_log.reading import Period, read_tables

CHAMPION = "champion"
"""The role whose rows are replayed."""

SEED = 0


class Sample(NamedTuple):
    """Rows that the champion has answered; those of a request follow each other in its order."""

    table: pa.Table
    starts: list[int]
    """Positions of the first rows of the requests."""
    n_logged: int
    """Rows of the champion in the period, of which these are a sample."""


def read_sample(folder: Path, model: str, version: str, period: Period, limit: int) -> Sample:
    """Returns whole requests with at most `limit` rows together; one that is larger on its own is allowed.

    Args:
        folder: of the log.
        model: its name.
        version: that was the champion.
        period: of the rows.
        limit: in rows.

    Raises:
        LifecycleError: the log cannot be read, or has no such rows.
    """
    with explaining(folder):
        requests, others = _count_requests(folder, model, version, period)
        if not requests:
            raise LifecycleError(_without_rows(folder, model, version, others))
        wanted = pa.array(_choose(requests, limit), pa.string())
        tables = [
            table.filter(pc.is_in(table["request_id"], value_set=wanted))
            for table in _champion_tables(folder, model, version, period, None)
        ]
        table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    order, starts = _arrange(table.select(["request_id", "time", "row"]).to_pandas())
    chosen = _cut(np.diff([*starts, len(order)]).tolist(), limit)
    parts = np.split(order, starts[1:])
    kept = [parts[position] for position in chosen]
    lengths = np.cumsum([0, *map(len, kept)])
    return Sample(table.take(pa.array(np.concatenate(kept))), lengths[:-1].tolist(), requests.total())


def _count_requests(
    folder: Path, model: str, version: str, period: Period
) -> tuple[Counter[str], Counter[str]]:
    """Returns the champion's rows by request id, and the rows of other champions by version."""
    requests: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for table in _champion_tables(folder, model, None, period, ["request_id", "role"]):
        if not table.num_rows:
            continue
        one = table["version"][0].as_py()
        if one != version:
            others[one] += table.num_rows
            continue
        for found in pc.value_counts(table["request_id"]).to_pylist():
            requests[found["values"]] += found["counts"]
    return requests, others


def _champion_tables(
    folder: Path, model: str, version: str | None, period: Period, columns: list[str] | None
) -> Iterator[pa.Table]:
    tables = read_tables(folder, model=model, version=version, period=period, columns=columns)
    return (table.filter(pc.equal(table["role"], CHAMPION)) for table in tables)


def _without_rows(folder: Path, model: str, version: str, others: Mapping[str, int]) -> str:
    there = ", ".join(f"{n:,} of version {one}" for one, n in sorted(others.items()))
    return (
        f"{folder}: the prediction log has no rows that version {version} of {model!r} answered as champion in this period; "
        + (f"there are {there} (--champion)" if there else "choose another with --since and --until")
    )


def _choose(requests: Mapping[str, int], limit: int) -> list[str]:
    """Returns the requests with the lowest hashes, so that runs with more rows include those of runs with fewer."""
    if sum(requests.values()) <= limit:
        return list(requests)
    chosen: list[str] = []
    left = limit
    for request in sorted(requests, key=_hash):
        if requests[request] > left and chosen:
            break
        chosen.append(request)
        left -= requests[request]
    return chosen


def _hash(request_id: str) -> bytes:
    return hashlib.blake2b(request_id.encode(), digest_size=8, person=b"replay").digest()


def _arrange(rows: pd.DataFrame) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[int]]:
    """Returns the order in which rows of a request follow each other, and where requests start.

    Callers may use an id for many requests. Of a request that was logged in parts, the times may differ slightly.
    """
    is_repeated = rows.duplicated(["request_id", "row"], keep=False)
    is_reused = is_repeated.groupby(rows["request_id"]).transform("any")
    moments = rows["time"].where(is_reused, rows["time"].min())
    ordered = rows.assign(moment=moments).sort_values(["request_id", "moment", "row"], kind="stable")
    is_first = (ordered["request_id"] != ordered["request_id"].shift()) | (ordered["row"] == 0)
    return ordered.index.to_numpy(), np.flatnonzero(is_first).tolist()


def _cut(sizes: list[int], limit: int) -> list[int]:
    """Returns the positions of requests to keep: all, unless one id was used for many."""
    if sum(sizes) <= limit:
        return list(range(len(sizes)))
    chosen: list[int] = []
    left = limit
    for position in np.random.default_rng(SEED).permutation(len(sizes)).tolist():
        if sizes[position] > left and chosen:
            break
        chosen.append(position)
        left -= sizes[position]
    return sorted(chosen)
