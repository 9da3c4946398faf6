"""One training: reads the rows, decides what they are, compares estimators, fits the best; reports each step."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pandas as pd
from sklearn.pipeline import Pipeline

from preprocessing import preprocess
from scripts.lifecycle.cli import align
from scripts.lifecycle.semantic_versions import CODE_TAG, DATA_TAG
from scripts.training import TrainingError
from scripts.training.churn_sample import TARGET, make_churn_sample
from scripts.training.column_options import Said, check_said, said_kinds
from scripts.training.columns import ColumnKinds, column_kinds, ignored_columns, make_signature
from scripts.training.conversion import Converted, column_rows, convert_columns, take_almost_numbers
from scripts.training.digests import digest_of_code, digest_of_rows
from scripts.training.evaluation import (
    MAX_EVALUATED_ROWS,
    N_FOLDS,
    Labelled,
    Scores,
    choose,
    cross_validate,
    fit,
    score_baseline,
    to_number,
    why_no_better,
)
from scripts.training.pipeline import (
    ESTIMATORS,
    Estimator,
    build_pipeline,
    choose_task,
    output_column,
    target_for_task,
)
from scripts.training.reading import describe_reading
from scripts.training.reference import example_rows, reference_instances
from scripts.training.registration import Trained
from scripts.training.table import CsvFile, check_target, read_csv, split_target

MAX_SHOWN_CLASSES = 10
"""Maximum classes in the output."""

Tell = Callable[[str], None]


class Decided(NamedTuple):
    """The task, the rows and the kinds of the columns."""

    data: str
    """Where the rows are from, in a few words."""
    rows: Labelled
    kinds: ColumnKinds
    reading: str
    """How callers read such a file; empty for generated rows."""


def decide(options: argparse.Namespace, say: Tell) -> Decided:
    """Reads the rows, and decides the task and the kinds of the columns.

    Raises:
        TrainingError: there is nothing to learn from, or the options do not fit.
    """
    said = said_kinds(options)
    csv, converted, target_name, data = read_rows(options, said, say)
    check_target(converted.rows, target_name)
    try:
        converted, features = preprocess_all(converted, target_name)
        check_said(said, [*map(str, converted.rows)], [*map(str, features)], target_name)
        kinds = column_kinds(features, said.kinds)
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"preprocessing.py: {error}") from error
    table = split_target(converted.rows, target_name)
    if table.n_without_target:
        say(f"left out: {table.n_without_target:,} rows without a value in {target_name!r}")
    task, why = choose_task(table.target)
    if options.task:
        task, why = options.task, "--task"
    target = target_for_task(table.target, task)
    say(f"task: {task} of {target_name!r} ({why})")
    for line in describe_classes(target) if task == "classification" else ():
        say(line)

    say("columns:")
    for line in align(column_rows(converted, kinds, table.inputs)):
        say(f"  {line}")
    if kinds.texts and options.estimator == "boosting":  # it needs dense columns: thousands of words
        raise TrainingError(
            f"--estimator boosting cannot learn from texts ({', '.join(kinds.texts)}); "
            "--drop them, or choose linear or forest"
        )
    reading = describe_reading(options.data, csv, converted, target_name) if csv else ""
    return Decided(data, Labelled(task, table.inputs, target), kinds, reading)


def describe_classes(target: pd.Series) -> list[str]:
    """Returns the classes with their rows, and a warning about texts that may be one class, such as `Yes` and `yes`."""
    rows = target.value_counts()
    shown = ", ".join(f"{label!r} {n:,}" for label, n in rows.head(MAX_SHOWN_CLASSES).items())
    more = len(rows) - MAX_SHOWN_CLASSES
    lines = [f"classes: {shown}{f' and {more} more' if more > 0 else ''}"]
    texts: dict[str, list[str]] = {}
    for label in rows.index:
        if isinstance(label, str):
            texts.setdefault(" ".join(label.casefold().split()), []).append(label)
    return lines + [
        f"warning: {', '.join(map(repr, alike))} are different classes; should they be one?"
        for alike in texts.values()
        if len(alike) > 1
    ]


def preprocess_all(converted: Converted, target: str) -> tuple[Converted, pd.DataFrame]:
    """Returns the rows, with nearly numeric columns as numbers, and the features from preprocessing."""
    features = preprocess(converted.rows.drop(columns=target))
    taken = take_almost_numbers(converted, features)
    if taken.rows.dtypes.equals(converted.rows.dtypes):
        return taken, features
    return taken, preprocess(taken.rows.drop(columns=target))


def read_rows(
    options: argparse.Namespace, said: Said, say: Tell
) -> tuple[CsvFile | None, Converted, str, str]:
    """Returns the file, if there is one, the rows, the target's name, and where the rows are from in a few words."""
    if options.data is None:
        rows = make_churn_sample(seed=options.seed)
        say(f"data: {len(rows):,} generated rows (seed {options.seed}), not real customers")
        return None, Converted(rows, {}, {}, {}), TARGET, f"generated (seed {options.seed})"
    csv = read_csv(options.data, options.sep, options.decimal)
    say(f"data: {options.data.name}, {len(csv.rows):,} rows, {len(csv.rows.columns)} columns{csv.form}")
    return csv, convert_columns(csv, said, options.target), options.target, options.data.name


def learn(decided: Decided, options: argparse.Namespace, say: Tell) -> Trained:
    """Compares the estimators and fits the best on all rows.

    Raises:
        TrainingError: none can be fitted.
    """
    data, rows, kinds, _ = decided
    task, inputs, target = rows
    make_pipeline = partial(build_pipeline, preprocess, kinds, task, seed=options.seed)
    estimator, scores = choose_estimator(make_pipeline, decided, options, say)
    baseline = score_baseline(rows)
    words = (f"{name.removeprefix('baseline_')} {to_number(value)}" for name, value in baseline.items())
    say(f"baseline: {', '.join(words)}")
    if task == "classification" and scores.mean["accuracy"] <= baseline["baseline_accuracy"]:
        say("its labels are no better than the commonest one for every row; use its probabilities")
    pipeline = fit(make_pipeline(estimator=estimator), inputs, target)

    ignored = ignored_columns(inputs, kinds, preprocess)
    shown = inputs.drop(columns=ignored)  # API docs need no identifier, and it cannot drift
    return Trained(
        pipeline=pipeline,
        signature=make_signature(inputs, ignored, output_column(target, task)),
        input_example=example_rows(shown),
        reference=reference_instances(shown, options.seed),
        metrics=scores.mean | {f"{name}_std": value for name, value in scores.spread.items()} | baseline,
        tags={
            "data": data,
            "target": str(target.name),
            "task": task,
            "estimator": estimator,
            "seed": str(options.seed),
            DATA_TAG: digest_of_rows(rows),
            CODE_TAG: digest_of_code(),
        },
        why_no_better=why_no_better(task, scores),
    )


def choose_estimator(
    make_pipeline: partial[Pipeline], decided: Decided, options: argparse.Namespace, say: Tell
) -> tuple[Estimator, Scores]:
    """Returns the best estimator and its scores."""
    rows = decided.rows
    names = [name for name in ESTIMATORS if options.estimator in {"auto", name}]
    if decided.kinds.texts:
        names = [name for name in names if name != "boosting"]
    n_rows = min(len(rows.inputs), MAX_EVALUATED_ROWS)
    say(f"cross-validation: {N_FOLDS} folds of {n_rows:,} rows, mean ± standard deviation")
    found: dict[Estimator, Scores] = {}
    for name in names:
        found[name] = cross_validate(partial(make_pipeline, estimator=name), rows, options.seed)
        say(f"  {name:9}" + "  ".join(found[name].describe(metric) for metric in found[name].mean))
    best, why = choose(found, rows.task)
    if len(names) > 1:
        say(f"estimator: {best}, {why}")
    return best, found[best]
