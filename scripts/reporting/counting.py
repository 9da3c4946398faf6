"""Counts the rows of one version in the prediction log into the bins of its reference, table by table."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from scripts.reporting.values import (
    as_logged,
    column_of,
    count,
    hashed_column_of,
    to_doubles,
    values_of,
    whole_values,
)
from serving.model.schema import Schema
from serving.monitoring.drift.comparison import compare, note
from serving.monitoring.drift.features import NUMBER, Binner, Counted, Feature
from serving.monitoring.drift.reference import Reference
from serving.monitoring.drift.statistics import Floats, population_stability, shares
from serving.monitoring.drift.tally import N_SAMPLED

HOUR, DAY = 3600, 86_400

HOURLY_DAYS = 2
"""A shorter period is shown by the hour."""


class Tallied:
    """The counts of one version; their memory does not grow with the rows."""

    def __init__(self, schema: Schema, reference: Reference, features: Sequence[Feature], step: int) -> None:
        """Starts with no rows.

        Args:
            schema: of the inputs.
            reference: of the version.
            features: of the reference, to compare.
            step: seconds of a part of the period.
        """
        self._schema, self._reference, self._step = schema, reference, step
        self._features = tuple(features)
        self._logged = [as_logged(feature) for feature in features]
        self._binners = [Binner(feature) for feature in self._logged]
        self._columns = [column_of(feature, schema) for feature in features]
        self._totals: list[Counted | None] = [None] * len(self._features)
        self._by_part: list[dict[int, Any]] = [{} for _ in self._features]
        self._sample = _Sample([feature.kind == NUMBER for feature in self._features])
        self._names: set[str] = set()
        self._roles: Counter[str] = Counter()
        self.n_rows = 0

    def add(self, table: pa.Table) -> None:
        """Counts rows.

        Args:
            table: with the log's columns.
        """
        if not table.num_rows:
            return
        self._names.update(table.column_names)
        self.n_rows += table.num_rows
        for one in table["role"].value_counts().to_pylist():
            self._roles[one["values"]] += one["counts"]
        seconds = table["time"].cast(pa.timestamp("s", tz="UTC"), safe=False).cast(pa.int64()).to_numpy()
        parts = seconds // self._step * self._step
        for part in np.unique(parts).tolist():
            rows = table if (parts == part).all() else table.filter(pa.array(parts == part))
            self._add_part(part, rows)

    def _add_part(self, part: int, rows: pa.Table) -> None:
        chosen = self._sample.choose(rows.num_rows)
        there = {*self._columns} & {*rows.column_names}
        whole = {name: whole_values(name, rows[name]) for name in there}
        for index, (feature, name) in enumerate(zip(self._logged, self._columns, strict=True)):
            if name not in whole:
                continue
            values = values_of(feature, whole[name])
            numbers = to_doubles(values) if feature.kind == NUMBER else np.empty(0)
            counted = count(feature, self._binners[index], values, numbers)
            self._totals[index] = _add(self._totals[index], counted)
            by_part = self._by_part[index]
            by_part[part] = by_part.get(part, 0) + counted.bins
            if feature.kind == NUMBER:
                self._sample.note(index, numbers[chosen])
        self._sample.keep()

    def describe(self, *, n_inputs: int, shows_values: bool) -> dict[str, Any]:
        """Returns what `/v1/drift` does, and each feature's index by part of the period.

        Args:
            n_inputs: the number of inputs that may be compared.
            shows_values: whether bins are named by the reference's values.
        """
        there = [(index, one) for index, one in enumerate(self._totals) if one is not None]
        features = [self._features[index] for index, _ in there]
        described = compare(
            features,
            [counted for _, counted in there],
            [self._sample.numbers(index) for index, _ in there],
            [feature.bin_names(shows_values=shows_values) for feature in features],
        )
        over_time = {
            (feature.name, feature.is_output): self._over_time(index, feature)
            for (index, _), feature in zip(there, features, strict=True)
        }
        for one in described:
            one["over_time"] = over_time[one["feature"], one["kind"] == "output"]
        return {
            "rows": self.n_rows,
            "roles": dict(sorted(self._roles.items())),
            "reference": {"rows": self._reference.n_rows, "is_sample": self._reference.is_sample},
            "drifted": [one["feature"] for one in described if one["has_drifted"]],
            "note": note(self._reference, len(features), self.n_rows),
            "step_seconds": self._step,
            "features": described,
            "not_compared": self._not_compared(n_inputs),
        }

    def _over_time(self, index: int, feature: Feature) -> list[dict[str, Any]]:
        reference = shares(feature.counts)
        return [
            {
                "time": dt.datetime.fromtimestamp(part, dt.UTC).isoformat(),
                "rows": int(bins.sum()),
                "psi": population_stability(shares(bins), reference),
            }
            for part, bins in sorted(self._by_part[index].items())
        ]

    def _not_compared(self, n_inputs: int) -> list[dict[str, str]]:
        """Returns the inputs without statistics, each with the reason."""
        compared = {
            one.position
            for one, counted in zip(self._features, self._totals, strict=True)
            if counted and not one.is_output
        }
        with_bins = {one.position: one for one in self._reference.features if not one.is_output}
        monitored = {one.position for one in self._features if not one.is_output}
        found = []
        for position, column in enumerate(self._schema.columns):
            if position in compared:
                continue
            if position not in with_bins:
                why = "no bins: the reference has no value, or it is a tensor of texts or of variable length"
            elif position not in monitored:
                why = f"not among the first {n_inputs} by importance (SERVING_MONITORED_FEATURES)"
            elif hashed_column_of(with_bins[position], self._schema) in self._names:
                why = "logged as a hash (SERVING_LOG_HASH)"
            else:
                why = "not logged (SERVING_LOG_EXCLUDE)"
            found.append({"input": column.name, "why": why})
        return found


class _Sample:
    """The numbers of up to `N_SAMPLED` random rows: those with the smallest of random keys."""

    def __init__(self, are_numbers: Sequence[bool]) -> None:
        self._random = np.random.default_rng(0)  # two reports of the same rows are equal
        self._columns = {index: line for line, index in enumerate(np.flatnonzero(are_numbers).tolist())}
        self._keys = np.empty(0)
        self._rows = np.empty((0, len(self._columns)))
        self._new_keys, self._new_rows = self._keys, self._rows

    def choose(self, n_rows: int) -> Any:
        """Returns the positions of the rows to note."""
        keys = self._random.random(n_rows)
        chosen = np.argsort(keys)[:N_SAMPLED] if n_rows > N_SAMPLED else np.arange(n_rows)
        if len(self._keys) == N_SAMPLED:
            chosen = chosen[keys[chosen] < self._keys.max()]
        self._new_keys = keys[chosen]
        self._new_rows = np.full((len(chosen), len(self._columns)), np.nan)
        return chosen

    def note(self, index: int, numbers: Floats) -> None:
        """Takes a feature's numbers of the chosen rows."""
        self._new_rows[:, self._columns[index]] = numbers

    def keep(self) -> None:
        """Joins the chosen rows with the earlier ones."""
        keys = np.concatenate((self._keys, self._new_keys))
        smallest = np.argsort(keys)[:N_SAMPLED]
        self._keys = keys[smallest]
        self._rows = np.concatenate((self._rows, self._new_rows))[smallest]

    def numbers(self, index: int) -> Floats:
        """Returns a feature's finite numbers, ascending."""
        if index not in self._columns:
            return np.empty(0)
        numbers = self._rows[:, self._columns[index]]
        return np.sort(numbers[np.isfinite(numbers)])


def _add(before: Counted | None, now: Counted) -> Counted:
    if before is None:
        return now
    return Counted(
        before.bins + now.bins,
        before.n_unknown + now.n_unknown,
        before.total + now.total,
        before.n_finite + now.n_finite,
    )
