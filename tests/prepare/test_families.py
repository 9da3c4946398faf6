"""Models of many families, from the registry to the answer: what serves them, and that they say what they say."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # the next import wants it
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler

from tests.support.served import answer, prepared

NUMBERS = ["size", "price"]


def rows(n_rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 2)), columns=NUMBERS)
    frame["price"] = np.exp(frame["price"])
    frame["colour"] = rng.choice(["red", "green", "blue"], n_rows)
    return frame


def front(*more: Any) -> Any:
    return make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["colour"]), *more)


def forest(kind: Any) -> Any:
    return kind(5, max_depth=4, random_state=0)


def squared(frame: pd.DataFrame) -> pd.DataFrame:
    return frame**2


COMPILED = {
    "search": GridSearchCV(
        make_pipeline(front((StandardScaler(), NUMBERS)), forest(RandomForestClassifier)),
        {"randomforestclassifier__max_depth": [2, 3]},
        cv=2,
    ),
    "logarithm": make_pipeline(front((FunctionTransformer(np.log1p), ["price"])), LogisticRegression()),
    "splines": make_pipeline(front((SplineTransformer(), NUMBERS)), LogisticRegression()),
    "neighbours": make_pipeline(front((KNNImputer(), NUMBERS)), LogisticRegression()),
    "rounds": make_pipeline(front((IterativeImputer(), NUMBERS)), LogisticRegression()),
    "outliers": make_pipeline(
        front((StandardScaler(), NUMBERS)), IsolationForest(n_estimators=9, random_state=0)
    ),
    "clusters": make_pipeline(front((StandardScaler(), NUMBERS)), KMeans(3, n_init=1, random_state=0)),
    "targets": make_pipeline(front((StandardScaler(), NUMBERS)), MultiOutputRegressor(Ridge())),
    "forest of targets": make_pipeline(front((StandardScaler(), NUMBERS)), forest(RandomForestRegressor)),
    "chain": make_pipeline(front((StandardScaler(), NUMBERS)), ClassifierChain(LogisticRegression())),
}
MIXED = {
    "a branch": make_pipeline(
        front((FunctionTransformer(squared), ["size"]), (StandardScaler(), ["price"])),
        forest(RandomForestClassifier),
    ),
}


@pytest.mark.parametrize("name", [*COMPILED, *MIXED])
def test_it_is_served_as_it_can_be_and_says_what_it_says_in_process(name: str, tmp_path: Path) -> None:
    frame = rows()
    y = (frame["size"] + frame["price"] > 1).astype(int).to_numpy()
    if "target" in name or name == "chain":
        y = np.column_stack([y, 1 - y])
    model = (COMPILED | MIXED)[name].fit(frame, y)
    served = prepared(tmp_path, model, frame)
    assert served.manifest.runtime == ("compiled" if name in COMPILED else "mixed"), (
        served.manifest.native_reason
    )

    got = answer(served, frame)
    if got.probabilities is not None:
        np.testing.assert_allclose(got.probabilities, model.predict_proba(frame), rtol=0, atol=1e-12)
    else:
        said = got.values if got.labels is None else got.labels
        np.testing.assert_allclose(said, model.predict(frame), rtol=0, atol=1e-12)  # type: ignore[arg-type]
