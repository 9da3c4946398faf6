"""The reference: the bins of a model's inputs and outputs, frozen from the rows that the model came with."""

import sys
from collections import Counter
from collections.abc import Iterator
from math import inf, nextafter, prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serving.model.schema import Column, Inputs, Kind, Schema
from serving.monitoring.drift.features import (
    ABOVE,
    BELOW,
    CATEGORY,
    MISSING,
    NUMBER,
    OTHER,
    PRESENCE,
    PRESENT,
    Binner,
    Feature,
    Values,
    is_missing,
    to_numbers,
)
from serving.runtime import Output, scores_of

FILE = "drift.json"
"""In the folder of a prepared model."""

N_QUANTILES = 10
"""Numbers are binned at deciles of the reference, the usual choice for the population stability index."""

MAX_CATEGORIES = 20
"""Categories with a bin of their own; the rest share one."""

MAX_KNOWN = 1_000
"""Distinct texts of the reference up to which a text that is not among them counts as unknown."""

MIN_NAMED_ROWS = 5
"""Reference rows that a text needs to have its own bin. A rarer one may identify a person, and of many rare texts those
that a small sample has are commoner in it than elsewhere, which would look like drift."""

MAX_ODD_CELLS = 0.05
"""Share of texts that are no number, up to which a column of texts is binned as numbers."""

MAX_NAME = 40
"""Characters of a category in its bin's name."""

MAX_FEATURES = 1_000
"""Inputs, and values of a tensor, that get bins."""

MAX_OUTPUTS = 10
"""Outputs of a multi-output model that get bins."""

_NUMBERS = frozenset({Kind.INTEGER, Kind.LONG, Kind.FLOAT, Kind.DOUBLE})
_LABELS = (str, int, float, bool)
"""Types of labels that JSON does not change."""

_CATEGORIES = frozenset({Kind.STRING, Kind.BOOLEAN})


class Reference(msgspec.Struct, frozen=True):
    """What rows looked like before the model was served."""

    is_sample: bool
    """Whether it is a sample that was logged for this; else it is the input example, or generated."""
    features: tuple[Feature, ...]
    """Inputs, then outputs; the most important inputs first if that was measured, else in the signature's order."""

    @property
    def n_rows(self) -> int:
        """Its rows."""
        return self.features[0].n_reference if self.features else 0

    def monitored(self, n_inputs: int) -> tuple[Feature, ...]:
        """Returns the first inputs and all outputs.

        Args:
            n_inputs: `SERVING_MONITORED_FEATURES`.
        """
        inputs = [one for one in self.features if not one.is_output][:n_inputs]
        return (*inputs, *(one for one in self.features if one.is_output))


def read_reference(folder: Path) -> Reference:
    """Reads a prepared model's reference.

    Raises:
        OSError: there is none.
        msgspec.MsgspecError: it is of another format.
    """
    return msgspec.json.decode((folder / FILE).read_bytes(), type=Reference)


def freeze(schema: Schema, inputs: Inputs, output: Output | None, *, is_sample: bool) -> Reference:
    """Returns the bins that some rows make.

    Args:
        schema: of the inputs.
        inputs: the reference rows.
        output: the model's answer to them; None if it has none for each row.
        is_sample: see `Reference`.
    """
    kinds = [
        *((feature, input_values(feature, inputs.columns[feature.position])) for feature in _inputs(schema)),
        *((feature, values) for feature, values in _outputs(output)),
    ]
    # Without any value there is nothing to compare with: a column that the model ignores, and only some callers send.
    there = [(feature, values) for feature, values in kinds if not is_missing(values).all()]
    return Reference(is_sample, tuple(_freeze(feature, values) for feature, values in there))


def input_values(feature: Feature, column: Values) -> Values:
    """Returns an input's values, of shape `(n_rows,)`, out of its column."""
    return column if column.ndim == 1 else column.reshape(len(column), -1)[:, feature.element]


def output_values(feature: Feature, output: Output) -> Values | None:
    """Returns an output's values, of shape `(n_rows,)`; None if it is absent."""
    if feature.name == SCORE:
        return _score(output)
    answers = output.labels if output.labels is not None else output.values
    if answers is None or answers.ndim == 1:
        return answers
    flat = answers.reshape(len(answers), -1)
    return flat[:, feature.element] if feature.element < flat.shape[1] else None


SCORE = "score"
"""The output of `serving.runtime.scores_of`."""


def _score(output: Output) -> Values | None:
    return None if output.probabilities is None else scores_of(output.probabilities)


def _inputs(schema: Schema) -> Iterator[Feature]:
    features = (
        Feature(name, False, kind, (), position=position, element=element)
        for position, column in enumerate(schema.columns)
        for name, kind, element in _parts(column)
    )
    yield from (feature for feature, _ in zip(features, range(MAX_FEATURES), strict=False))


def _parts(column: Column) -> Iterator[tuple[str, str, int]]:
    kind = column.type.kind
    if kind is not Kind.TENSOR:
        yield column.name, NUMBER if kind in _NUMBERS else CATEGORY if kind in _CATEGORIES else PRESENCE, 0
    elif column.type.dtype != "str" and -1 not in column.type.shape:
        n_values = prod(column.type.shape)
        for element in range(n_values):
            yield column.name if n_values == 1 else f"{column.name}[{element}]", NUMBER, element


def _outputs(output: Output | None) -> Iterator[tuple[Feature, Values]]:
    if output is None:
        return
    score = _score(output)
    if score is not None:
        yield Feature(SCORE, True, NUMBER, ()), score
    answers = output.labels if output.labels is not None else output.values
    name, kind = ("label", CATEGORY) if output.labels is not None else ("value", NUMBER)
    if answers is None or (kind == NUMBER and answers.dtype.kind not in "fiub"):
        return
    if kind == CATEGORY and not all(isinstance(one, _LABELS) for one in answers.ravel().tolist()):
        return
    if answers.ndim == 1:
        yield Feature(name, True, kind, ()), answers
        return
    flat = answers.reshape(len(answers), -1)
    for element in range(min(flat.shape[1], MAX_OUTPUTS)):
        yield Feature(f"{name}[{element}]", True, kind, (), element=element), flat[:, element]


def _freeze(feature: Feature, values: Values) -> Feature:
    if feature.kind == CATEGORY and not feature.is_output and _has_numbers(values):
        feature = msgspec.structs.replace(feature, kind=NUMBER)
    match feature.kind:
        case "number":
            binned = _freeze_numbers(feature, values)
        case "category":
            binned = _freeze_categories(feature, values)
        case _:
            binned = msgspec.structs.replace(feature, bins=(MISSING, PRESENT))
    counts = Binner(binned).count(values).bins
    return msgspec.structs.replace(binned, counts=tuple(counts.tolist()))


def _has_numbers(values: Values) -> bool:
    """Whether texts are numbers, but for a few such as `unknown`: a column of a CSV file with odd cells."""
    present = values[~is_missing(values)]
    if not all(isinstance(value, str) for value in present.tolist()):
        return False
    numbers = to_numbers(present)
    return len(np.unique(numbers)) > MAX_CATEGORIES and np.isnan(numbers).mean() <= MAX_ODD_CELLS


def _freeze_numbers(feature: Feature, values: Values) -> Feature:
    numbers = to_numbers(values)
    finite = np.sort(numbers[np.isfinite(numbers)])
    if not len(finite):
        return msgspec.structs.replace(feature, bins=(MISSING, PRESENT))
    # Deciles that are values of the reference: ties then fall on one side of an edge.
    levels = np.arange(1, N_QUANTILES) / N_QUANTILES
    inner = np.unique(np.quantile(finite, levels, method="inverted_cdf")).tolist()
    low, high = float(finite[0]), float(finite[-1])
    uppers = [*(edge for edge in inner if edge < high), high]
    lowers = [low, *uppers[:-1]]
    sample = tuple(finite.tolist())
    tolerance = msgspec.structs.replace(feature, sample=sample).tolerance
    named = [f"{low:.6g}, {high:.6g}]" for low, high in zip(lowers, uppers, strict=True)]
    if len(set(named)) < len(named):
        named = [f"{low!r}, {high!r}]" for low, high in zip(lowers, uppers, strict=True)]
    return msgspec.structs.replace(
        feature,
        bins=(MISSING, BELOW, f"[{named[0]}", *(f"({name}" for name in named[1:]), ABOVE),
        edges=(
            max(nextafter(low - tolerance, -inf), -sys.float_info.max),
            *(edge + tolerance for edge in uppers),
        ),
        sample=sample,
    )


def _freeze_categories(feature: Feature, values: Values) -> Feature:
    present = values[~is_missing(values)].tolist()
    seen = Counter(present)
    # What a model answers is no secret.
    least = 1 if feature.is_output else MIN_NAMED_ROWS
    ordered = sorted(seen.items(), key=lambda item: (-item[1], str(item[0])))[:MAX_CATEGORIES]
    named = tuple(value for value, n_rows in ordered if n_rows >= least or isinstance(value, bool))
    is_categorical = len(seen) <= min(MAX_KNOWN, max(1, len(present) // 2))
    return msgspec.structs.replace(
        feature,
        bins=(MISSING, *_bin_names(named), OTHER),
        categories=named,
        known=tuple(seen) if is_categorical else None,
    )


def _bin_names(categories: tuple[Any, ...]) -> list[str]:
    """Returns distinct names; those that mean a bin of our own are quoted."""
    names: list[str] = []
    for value in categories:
        name = str(value).lower() if isinstance(value, bool) else str(value)
        name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
        while name in (MISSING, BELOW, ABOVE, OTHER, PRESENT, *names):
            name = f"{name!r} ({len(names)})"
        names.append(name)
    return names
