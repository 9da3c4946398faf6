"""Compiles a fitted model and compares it with the original before it serves."""

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.model.prepared import Parity
from serving.model.schema import Inputs, Kind, Schema, join, take
from serving.prepare.checks.generated import Group, cast_within, generate_groups
from serving.prepare.checks.parity import MAX_SINGLE_ROWS, Comparison, ask, same_output
from serving.runtime import Output, Runtime, count_output, slice_output
from serving.runtime.compiled import CompiledRuntime, inputs_to_data
from serving.runtime.compiled.data import Columns, Data, NotCompiled, as_matrix
from serving.runtime.compiled.estimators.leaves import LeafFinder
from serving.runtime.compiled.nodes import Predictor, compile_predictor, nodes_of, standing_in
from serving.runtime.compiled.plan import load_plan, save_plan
from serving.runtime.compiled.wrappers.composition import (
    ChainPredictor,
)
from serving.runtime.mixed import MixedRuntime, NativeParts, native_parts
from serving.runtime.native import NativeRuntime, adapter_of

SAMPLE_ROWS = 50
"""Rows that the compiled steps are tried on during compilation."""

ROWS_ON_THRESHOLDS = 2_000


class Compiled(NamedTuple):
    """A compiled model that has passed the gate."""

    runtime: Runtime
    native_steps: list[str]
    """Names of the pipeline's steps that stay in their own library."""
    reason: str | None
    """Why they stay; None if the whole model is compiled."""
    parity: Parity
    is_rowwise: bool | None
    """Whether rows are independent; None if a part stays native, so that this must be tested."""


def compile_model(native: NativeRuntime, schema: Schema, sample: Inputs, folder: Path) -> Compiled:
    """Compiles a model into a new folder and compares it with the original.

    Args:
        native: the original.
        schema: its inputs.
        sample: real rows: the examples and the reference sample.
        folder: for the plan; it must not exist.

    Raises:
        NotCompiled: a part has no compiled form, or the answers differ; says which and how.
        OSError: the plan cannot be written.
    """
    model = native.model
    if model is None:
        raise NotCompiled("a model that is called through mlflow.pyfunc runs its own code")
    if sum(column.type.kind is Kind.TENSOR for column in schema.columns) and len(schema.columns) > 1:
        raise NotCompiled("a signature of several tensors has no compiled form")
    sample = accepted_rows(native, sample)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        data = inputs_to_data(take(sample, 0, SAMPLE_ROWS), schema)
        if isinstance(data, Columns) and native.takes_texts:
            data = data._replace(is_flat=True)
        predictor = _compile(model, data)
        save_plan(predictor, folder)
        predictor = load_plan(folder)
        stay = native_parts(predictor)
        compiled: Runtime = (
            MixedRuntime(model, predictor, schema) if stay else CompiledRuntime(predictor, schema)
        )
        parity = _compare(native, compiled, predictor, schema, sample)
    reason = "; ".join(f"step {part.name!r}: {part.native_reason}" for part in stay)
    is_rowwise = None if stay else True
    if not _is_rowwise(predictor):
        is_rowwise = False
    return Compiled(compiled, [part.name for part in stay], reason or None, parity, is_rowwise)


def _is_rowwise(predictor: Predictor) -> bool:
    return all(node.is_rowwise for node in nodes_of(predictor))


def _compare(
    native: NativeRuntime, compiled: Runtime, predictor: Predictor, schema: Schema, sample: Inputs
) -> Parity:
    comparison = Comparison(sample.n_rows)
    words = sorted(words_of(predictor))
    for group in [Group("the sample's values", sample), *generate_groups(schema, sample, words)]:
        comparison.group(
            group, lambda rows: native.predict(rows, {}), lambda rows: compiled.predict(rows, {})
        )
        if _is_rowwise(predictor):
            comparison.single_rows(
                group, lambda rows: native.predict(rows, {}), lambda rows: compiled.predict(rows, {})
            )
            continue
        for row in range(min(group.inputs.n_rows, MAX_SINGLE_ROWS)):
            alone = Group(group.name, take(group.inputs, row, row + 1))
            comparison.group(
                alone, lambda rows: native.predict(rows, {}), lambda rows: compiled.predict(rows, {})
            )
    head = take(sample, 0, SAMPLE_ROWS)
    for matrix, expected, got in _threshold_answers(native, predictor, head, schema):
        comparison.thresholds(expected, got, len(matrix))
    return comparison.parity()


def accepted_rows(native: NativeRuntime, sample: Inputs) -> Inputs:
    """Returns the rows that the model answers: an example may contain rows that it refuses.

    Raises:
        NotCompiled: it answers none of the rows tried.
    """
    if isinstance(ask(lambda rows: native.predict(rows, {}), sample), Output):
        return sample
    rows = [take(sample, row, row + 1) for row in range(min(sample.n_rows, 4 * SAMPLE_ROWS))]
    accepted = [row for row in rows if isinstance(ask(lambda r: native.predict(r, {}), row), Output)]
    if not accepted:
        raise NotCompiled("the original answers none of its sample rows")
    return join(accepted)


def _compile(model: Any, data: Data) -> Predictor:
    """The compiled form of the model, or of all its parts that have one."""
    try:
        return compile_predictor(model, data)
    except NotCompiled:
        with standing_in(NativeParts(model)):
            return compile_predictor(model, data)


def words_of(predictor: Predictor) -> set[str]:
    """Returns the short texts in the nodes' state: the categories that a model knows."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, str) and len(value) <= 200:
            found.add(value)
        elif isinstance(value, (dict, list, tuple)):
            for item in value:
                look(item)

    for node in nodes_of(predictor):
        for value in vars(node).values():
            look(value)
    return found


def _threshold_answers(
    native: NativeRuntime, predictor: Predictor, sample: Inputs, schema: Schema
) -> Iterator[tuple[npt.NDArray[Any], Output, Output]]:
    """The answers of the last estimator and its compiled form for rows on split thresholds, if it has any."""
    last = predictor.last if isinstance(predictor, ChainPredictor) else predictor
    finders = [node for node in nodes_of(last) if isinstance(node, LeafFinder)]
    if not finders:
        return
    data = inputs_to_data(sample, schema)
    if isinstance(predictor, ChainPredictor):
        for step in predictor.steps:
            data = step.transform(data)
    try:
        matrix = as_matrix(data)
    except (ValueError, NotCompiled):
        return  # the estimator itself handles text or a sparse matrix
    rows = rows_on_thresholds(matrix, finders)
    if isinstance(predictor, ChainPredictor):
        expected = adapter_of(_pipeline_of(native.model).steps[-1][1]).predict(rows, {})
        got = last.output(rows)
    else:
        inputs = _matrix_to_inputs(rows, schema)
        expected = native.predict(inputs, {})
        got = last.output(inputs_to_data(inputs, schema))
    yield rows, expected, got


def _pipeline_of(model: Any) -> Any:
    """The pipeline in a model: itself, a search's best estimator, or a frozen one."""
    while not hasattr(model, "steps"):
        model = model.best_estimator_ if hasattr(model, "best_estimator_") else model.estimator
    return model


def rows_on_thresholds(
    matrix: npt.NDArray[Any], finders: list[LeafFinder], seed: int = 0
) -> npt.NDArray[Any]:
    """Returns rows of the matrix with features moved onto thresholds, or next to them."""
    rng = np.random.default_rng(seed)
    rows = matrix[rng.integers(len(matrix), size=ROWS_ON_THRESHOLDS)].astype(np.float64)
    for finder in finders:
        inside = finder.split_features < rows.shape[1]
        features, thresholds = finder.split_features[inside], finder.split_thresholds[inside]
        if not len(features):
            continue
        for row in rows:
            chosen = rng.integers(len(features), size=rng.integers(1, 6))
            exact = thresholds[chosen]
            near = np.nextafter(exact.astype(np.float32), np.float32(rng.choice([-np.inf, np.inf])))
            row[features[chosen]] = np.where(rng.random(len(chosen)) < 0.5, exact, near)
    return cast_within(rows, matrix.dtype) if matrix.dtype.kind == "f" else rows


def _matrix_to_inputs(rows: npt.NDArray[Any], schema: Schema) -> Inputs:
    if schema.columns[0].type.kind is Kind.TENSOR:
        return Inputs((cast_within(rows, np.dtype(schema.columns[0].type.dtype)),), len(rows))
    columns = tuple(np.ascontiguousarray(column) for column in rows.T)
    return Inputs(columns, len(rows))


MAX_ROWWISE_ROWS = 400
"""Of the sample, and of ordinary generated rows; the other groups give a few."""

ROWWISE_SECONDS = 5.0
"""Time limit of the test. For a slower model, sharing calls matters little: calls take longer than the wait for them."""


def is_rowwise(native: NativeRuntime, schema: Schema, sample: Inputs) -> bool:
    """Whether rows get the same answers alone as together: real ones, missing values, unknown texts, extremes.

    This is a test, not a proof. If all rows tried get the same answer, the test is inconclusive: then False.
    """
    give_up = time.monotonic() + ROWWISE_SECONDS
    made = [take(group.inputs, 0, MAX_ROWWISE_ROWS) for group in generate_groups(schema, sample, [])]
    ordinary, *others = made
    groups = [take(sample, 0, MAX_ROWWISE_ROWS), *(take(group, 0, 16) for group in others), ordinary]
    varies = False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for inputs in groups:
            together = ask(lambda rows: native.predict(rows, {}), inputs)
            if not isinstance(together, Output):
                continue  # a shared call that fails is split up anyway
            for row in range(inputs.n_rows):
                if time.monotonic() > give_up:
                    return varies
                alone = ask(lambda rows: native.predict(rows, {}), take(inputs, row, row + 1))
                if not isinstance(alone, Output):
                    return False
                if count_output(together) != inputs.n_rows or not same_output(
                    slice_output(together, row, row + 1), alone
                ):
                    return False
                varies = varies or not same_output(slice_output(together, 0, 1), alone)
    return varies
