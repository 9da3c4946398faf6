"""The task, the pipeline and its scores: from raw rows to predictions in one scikit-learn object."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from mlflow.types import ColSpec, DataType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from scripts.lifecycle.scoring import score_output
from scripts.training import TrainingError
from scripts.training.columns import ColumnKinds, column_type
from serving.runtime import Output

Task = Literal["classification", "regression"]
Model = Literal["forest", "linear"]

NOUNS = {
    DataType.string: "texts",
    DataType.boolean: "truth values",
    DataType.long: "integers",
    DataType.double: "decimal numbers",
}

MAX_INTEGER_CLASSES = 20
"""An integer target with more distinct values than this is a quantity, not a class."""

MAX_CLASSES = 1_000
"""A classifier of more classes is a column mistaken for a target."""

MIN_CLASS_ROWS = 5
"""Fewer rows of a class cannot be split into a part to learn from and a part to measure with."""


def choose_task(target: pd.Series) -> tuple[Task, str]:
    """Returns the task that a target without missing values asks for, and the reason as a phrase."""
    n_distinct = target.nunique()
    kind = column_type(target)
    if kind in (DataType.string, DataType.boolean):
        return "classification", f"{n_distinct:,} distinct {NOUNS[kind]}"
    if kind == DataType.long and n_distinct <= MAX_INTEGER_CLASSES:
        return "classification", f"{n_distinct} distinct {NOUNS[kind]}"
    return "regression", f"{n_distinct:,} distinct {NOUNS[kind]}"


def target_for_task(target: pd.Series, task: Task) -> pd.Series:
    """Returns the target as the task needs it: labels of one type, or float64.

    Raises:
        TrainingError: text for a regression, fractions for a classification, one class only, too many
            classes, or a class with too few rows.
    """
    if task == "regression":
        if column_type(target) == DataType.string:
            raise TrainingError(f"{target.name!r} is text; a regression needs numbers")
        if target.nunique() < 2:
            raise TrainingError(f"{target.name!r} has one value only; there is nothing to predict")
        return target.astype("float64")
    if column_type(target) == DataType.double:
        if (target % 1 != 0).any():
            raise TrainingError(f"{target.name!r} has fractions; a classification needs classes")
        target = target.astype("int64")
    elif column_type(target) == DataType.boolean:
        target = target.astype("bool")
    rows_of_class = target.value_counts()
    if len(rows_of_class) < 2:
        raise TrainingError(
            f"{target.name!r} has one class only ({rows_of_class.index[0]!r}); two are needed"
        )
    if len(rows_of_class) > MAX_CLASSES:
        raise TrainingError(f"{target.name!r} has {len(rows_of_class):,} classes; is it the target?")
    if rows_of_class.min() < MIN_CLASS_ROWS:
        rare, n_rows = rows_of_class.index[-1], rows_of_class.min()
        raise TrainingError(
            f"class {rare!r} of {target.name!r} has too few rows: {n_rows}, at least {MIN_CLASS_ROWS} are needed"
        )
    return target


def build_pipeline(
    preprocess: Callable[[pd.DataFrame], pd.DataFrame],
    kinds: ColumnKinds,
    task: Task,
    model: Model = "forest",
    seed: int = 0,
) -> Pipeline:
    """Returns the unfitted pipeline that takes raw rows; columns are picked by name, in any order."""
    # An empty column of the training part stays: the names and number of features are then those of `kinds`.
    numeric: list[tuple[str, Any]] = [("impute", SimpleImputer(strategy="median", keep_empty_features=True))]
    if model == "linear":
        numeric.append(("scale", StandardScaler()))
    # Missing text is NaN where pandas read a table, and None where a row of one null came as JSON. The first
    # imputer leaves None as it is, which would be an unknown category to the encoder: another answer.
    missing_text = {"strategy": "constant", "fill_value": "missing", "keep_empty_features": True}
    text: list[tuple[str, Any]] = [
        ("impute_nan", SimpleImputer(missing_values=np.nan, **missing_text)),
        ("impute_none", SimpleImputer(missing_values=None, **missing_text)),
        ("encode", OneHotEncoder(handle_unknown="ignore")),
    ]
    columns = ColumnTransformer(
        [
            (name, Pipeline(steps), names)
            for name, steps, names in (("numeric", numeric, kinds.numeric), ("text", text, kinds.text))
            if names
        ]
    )
    return Pipeline(
        [
            ("preprocess", FunctionTransformer(preprocess)),
            ("columns", columns),
            ("model", build_estimator(task, model, seed)),
        ]
    )


def build_estimator(task: Task, model: Model, seed: int) -> Any:
    """Returns the unfitted last step of the pipeline."""
    if model == "linear":
        return LogisticRegression(max_iter=1_000) if task == "classification" else Ridge()
    forest = RandomForestClassifier if task == "classification" else RandomForestRegressor
    return forest(n_estimators=100, n_jobs=1, random_state=seed)


def output_column(target: pd.Series, task: Task) -> ColSpec:
    """Returns what `predict` answers: a label of the target's type, or a double."""
    return ColSpec(DataType.double if task == "regression" else column_type(target), str(target.name))


def score(pipeline: Pipeline, task: Task, inputs: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    """Returns the metrics on rows the pipeline has not seen: those that a validation judges it by later."""
    predicted = pipeline.predict(inputs)
    if task == "regression":
        return score_output(target, Output(values=predicted), None)
    output = Output(labels=predicted, probabilities=pipeline.predict_proba(inputs))
    return score_output(target, output, pipeline.classes_.tolist())


def score_baseline(task: Task, training_target: pd.Series, target: pd.Series) -> dict[str, float]:
    """Returns what always saying the most frequent class, or the mean, of the training part scores."""
    if task == "regression":
        error = target - training_target.mean()
        return {
            "baseline_rmse": float(np.sqrt((error**2).mean())),
            "baseline_mae": float(error.abs().mean()),
        }
    return {"baseline_accuracy": float((target == training_target.mode().iloc[0]).mean())}
