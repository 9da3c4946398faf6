"""Scores pipelines on held-out rows, and compares them with a baseline."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from scripts.lifecycle.scoring import score_output
from scripts.training import TrainingError
from scripts.training.pipeline import Estimator, Task
from serving.runtime import Output

N_FOLDS = 5

MAX_EVALUATED_ROWS = 50_000
"""More rows would take long without narrowing the spread noticeably."""

MIN_PARALLEL_ROWS = 50_000
"""With fewer, boosting's threads wait for each other longer than they work: training on 2,000 rows took 9.8 s with one
and 23.9 s with several, on two busy processors."""

DECISIVE = {"classification": "roc_auc", "regression": "r2"}
"""The metric by which estimators are chosen. Not accuracy: a model of rare events may be useful without beating the
baseline's."""

WORTHLESS = {"classification": 0.5, "regression": 0.0}
"""This metric's value for predictions that ignore the row."""

T_99 = 3.747
"""The 99th percentile of Student's t with four degrees of freedom, one less than the folds."""


class Labelled(NamedTuple):
    """Rows with their right answers."""

    task: Task
    inputs: pd.DataFrame
    target: pd.Series


class Scores(NamedTuple):
    """Results of a cross-validation, by metric."""

    mean: dict[str, float]
    spread: dict[str, float]
    """The standard deviation over the folds."""

    def describe(self, metric: str) -> str:
        """Returns a metric in words."""
        return f"{metric} {to_number(self.mean[metric])} ± {to_number(self.spread[metric], 2)}"


def cross_validate(make_pipeline: Callable[[], Pipeline], rows: Labelled, seed: int) -> Scores:
    """Fits a pipeline on four fifths of the rows and scores it on the last fifth, five times.

    Args:
        make_pipeline: returns an unfitted one.
        rows: raw; the folds of a classification are stratified.
        seed: of the folds.

    Raises:
        TrainingError: it cannot be fitted.
    """
    task, inputs, target = sample_rows(rows, seed)
    splitter = StratifiedKFold if task == "classification" else KFold
    folds = splitter(N_FOLDS, shuffle=True, random_state=seed).split(inputs, target)
    found = pd.DataFrame(
        [
            score(
                fit(make_pipeline(), inputs.iloc[learned], target.iloc[learned]),
                Labelled(task, inputs.iloc[held], target.iloc[held]),
            )
            for learned, held in folds
        ]
    )
    return Scores(
        {str(name): float(column.mean()) for name, column in found.items()},
        {str(name): float(column.std()) for name, column in found.items()},
    )


def sample_rows(rows: Labelled, seed: int) -> Labelled:
    """Returns at most `MAX_EVALUATED_ROWS` rows; of a classification, a stratified sample."""
    task, inputs, target = rows
    if len(inputs) <= MAX_EVALUATED_ROWS:
        return rows
    classes = target if task == "classification" else None
    inputs, _, target, _ = train_test_split(
        inputs, target, train_size=MAX_EVALUATED_ROWS, random_state=seed, stratify=classes
    )
    return Labelled(task, inputs, target)


def fit(pipeline: Pipeline, inputs: pd.DataFrame, target: pd.Series) -> Pipeline:
    """Returns the pipeline, fitted.

    Raises:
        TrainingError: it cannot be fitted.
    """
    n_threads = 1 if len(inputs) < MIN_PARALLEL_ROWS else None
    try:
        with threadpool_limits(n_threads, user_api="openmp"):
            return pipeline.fit(inputs, target)
    except ValueError as error:
        raise TrainingError(f"the model cannot be fitted: {' '.join(str(error).split())}") from error


def score(pipeline: Pipeline, rows: Labelled) -> dict[str, float]:
    """Returns the metrics of a fitted pipeline, the same as in `validate.py`."""
    predicted = pipeline.predict(rows.inputs)
    if rows.task == "regression":
        return score_output(rows.target, Output(values=predicted), None)
    output = Output(labels=predicted, probabilities=pipeline.predict_proba(rows.inputs))
    return score_output(rows.target, output, pipeline.classes_.tolist())


def score_baseline(rows: Labelled) -> dict[str, float]:
    """Returns the scores of always predicting the most frequent class, or the mean."""
    target = rows.target
    if rows.task == "regression":
        error = target - target.mean()
        return {
            "baseline_rmse": float(np.sqrt((error**2).mean())),
            "baseline_mae": float(error.abs().mean()),
        }
    return {"baseline_accuracy": float((target == target.mode().iloc[0]).mean())}


def choose(found: Mapping[Estimator, Scores], task: Task) -> tuple[Estimator, str]:
    """Returns the first estimator within one standard error of the best, and why.

    Args:
        found: scores by estimator, the fastest to serve first.
        task: decides the metric.

    Source: the rule of one standard error; Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984.
    """
    metric = DECISIVE[task]
    best = max(found, key=lambda name: found[name].mean[metric])
    enough = found[best].mean[metric] - found[best].spread[metric] / math.sqrt(N_FOLDS)
    chosen = next(name for name in found if found[name].mean[metric] >= enough)
    if chosen == best:
        return best, f"the best {metric}"
    return chosen, f"within one standard error of the best {metric}, and faster to serve than {best}"


def why_no_better(task: Task, scores: Scores) -> str:
    """Returns why a model may be no better than the baseline; empty if it is better.

    A model that learned nothing passes once in a hundred times. Source: the t-test of resampled scores, whose variance
    is corrected for folds that share their training rows; Nadeau, Bengio, Inference for the Generalization Error, 2003.
    """
    metric, worthless = DECISIVE[task], WORTHLESS[task]
    error = scores.spread[metric] * math.sqrt(1 / N_FOLDS + 1 / (N_FOLDS - 1))
    if scores.mean[metric] - T_99 * error > worthless:
        return ""
    return f"{scores.describe(metric)} may be chance; predictions that ignore the row score {worthless:g}"


def to_number(value: float, n_digits: int = 4) -> str:
    """Returns a metric in words, without an exponent if it is large."""
    return f"{value:,.0f}" if abs(value) >= 10**n_digits else f"{value:.{n_digits}g}"
