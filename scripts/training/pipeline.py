"""The task and the pipeline: from raw rows to predictions in one scikit-learn object."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from mlflow.types import ColSpec, DataType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from scripts.training import TrainingError
from scripts.training.columns import MAX_CATEGORIES, ColumnKinds, column_type

Task = Literal["classification", "regression"]
Estimator = Literal["linear", "boosting", "forest"]
ESTIMATORS: tuple[Estimator, ...] = ("linear", "boosting", "forest")
"""The fastest to serve first."""

NOUNS = {
    DataType.string: "texts",
    DataType.boolean: "truth values",
    DataType.long: "integers",
    DataType.double: "decimal numbers",
}

MAX_INTEGER_CLASSES = 20
"""An integer target with more distinct values than this is a quantity, not a class."""

MAX_CLASSES = 1_000
"""With more classes, the target is probably the wrong column."""

MIN_WORD_ROWS = 2
"""Words in fewer rows are ignored."""

MAX_WORDS = 5_000
"""Maximum words of a text column, the commonest ones."""

MIN_CLASS_ROWS = 5
"""Minimum rows of a class: one for each of the five folds."""


def choose_task(target: pd.Series) -> tuple[Task, str]:
    """Returns the task for a target without missing values, and the reason as a phrase."""
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
    estimator: Estimator = "forest",
    seed: int = 0,
) -> Pipeline:
    """Returns the unfitted pipeline that takes raw rows; columns are picked by name, in any order."""
    # pandas reads missing text as NaN, but a JSON row of one null has None. The first imputer leaves None, which the
    # encoder would take for an unknown category, and the answer would differ.
    missing_text = {"strategy": "constant", "keep_empty_features": True}

    def without_missing(text: str) -> list[tuple[str, Any]]:
        return [
            ("impute_nan", SimpleImputer(missing_values=np.nan, fill_value=text, **missing_text)),
            ("impute_none", SimpleImputer(missing_values=None, fill_value=text, **missing_text)),
        ]

    # Columns that are empty in a fold are kept, so that the features stay those of `kinds`.
    numbers: list[tuple[str, Any]] = [("impute", SimpleImputer(strategy="median", keep_empty_features=True))]
    if estimator == "linear":
        numbers.append(("scale", StandardScaler()))
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=bool(kinds.texts)
    )
    groups: list[tuple[str, Any, Any]] = [
        ("numeric", Pipeline(numbers), kinds.numbers),
        ("text", Pipeline([*without_missing("missing"), ("encode", one_hot)]), kinds.categories),
        ("codes", one_hot, kinds.codes),
    ]
    for position, name in enumerate(kinds.texts):
        words = TfidfVectorizer(min_df=MIN_WORD_ROWS, max_features=MAX_WORDS, sublinear_tf=True)
        # A vectorizer takes an array of texts; imputers return a table with one column.
        steps = [*without_missing(""), ("ravel", FunctionTransformer(np.ravel)), ("tfidf", words)]
        groups.append((f"words_{position}", Pipeline(steps), [name]))
    columns = ColumnTransformer(
        [group for group in groups if group[2]], sparse_threshold=1.0 if kinds.texts else 0.0
    )
    return Pipeline(
        [
            ("preprocess", FunctionTransformer(preprocess)),
            ("columns", columns),
            ("model", build_estimator(task, estimator, seed)),
        ]
    )


def build_estimator(task: Task, estimator: Estimator, seed: int) -> Any:
    """Returns the unfitted last step of the pipeline."""
    is_classifier = task == "classification"
    match estimator:
        case "linear":
            return LogisticRegression(max_iter=1_000) if is_classifier else Ridge()
        case "boosting":
            boosting = HistGradientBoostingClassifier if is_classifier else HistGradientBoostingRegressor
            return boosting(random_state=seed)
        case "forest":
            forest = RandomForestClassifier if is_classifier else RandomForestRegressor
            return forest(n_estimators=100, n_jobs=1, random_state=seed)


def output_column(target: pd.Series, task: Task) -> ColSpec:
    """Returns the type that `predict` answers with: a label of the target's type, or a double."""
    return ColSpec(DataType.double if task == "regression" else column_type(target), str(target.name))
