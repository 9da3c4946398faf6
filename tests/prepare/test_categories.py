"""Boosters on pandas' `category` columns, from the registry to the answer: their signature says text and numbers."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from tests.support.served import answer, prepared


def rows(n_rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "colour": pd.Categorical(rng.choice(["red", "green", "blue"], n_rows)),
            "size": rng.normal(size=n_rows),
            "shelf": pd.Categorical(rng.choice([30, 10, 20], n_rows)),
            "maker": pd.Categorical(rng.choice([f"m{i}" for i in range(30)], n_rows)),
        }
    )
    frame.loc[rng.random(n_rows) < 0.1, "colour"] = None
    return frame


def target(frame: pd.DataFrame) -> np.ndarray:
    return np.asarray(
        frame["colour"].cat.codes * frame["size"] + np.sin(frame["maker"].cat.codes) > 0.3
    ).astype(int)


def lightgbm_estimator(X: pd.DataFrame, y: np.ndarray) -> Any:
    return lightgbm.LGBMClassifier(n_estimators=9, n_jobs=1, verbose=-1, min_child_samples=3).fit(X, y)


def lightgbm_booster(X: pd.DataFrame, y: np.ndarray) -> Any:
    return lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, y), 9)


def xgboost_estimator(X: pd.DataFrame, y: np.ndarray) -> Any:
    return xgboost.XGBClassifier(n_estimators=9, n_jobs=1, enable_categorical=True).fit(X, y)


def xgboost_booster(X: pd.DataFrame, y: np.ndarray) -> Any:
    data = xgboost.DMatrix(X, y, enable_categorical=True)
    return xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 9)


def own_probabilities(model: Any, frame: pd.DataFrame) -> Any:
    if hasattr(model, "predict_proba"):
        return model.predict_proba(frame)[:, 1]
    is_xgboost = isinstance(model, xgboost.Booster)
    return model.predict(xgboost.DMatrix(frame, enable_categorical=True) if is_xgboost else frame)


@pytest.mark.parametrize("fit", [lightgbm_estimator, lightgbm_booster, xgboost_estimator, xgboost_booster])
def test_it_is_compiled_and_says_what_the_library_says_of_a_category_frame(fit: Any, tmp_path: Path) -> None:
    frame = rows()
    model = fit(frame, target(frame))
    served = prepared(tmp_path, model, frame, fit.__name__.partition("_")[0])
    assert served.manifest.runtime == "compiled", served.manifest.native_reason
    assert served.manifest.parity is not None
    assert served.manifest.parity.max_abs_difference == 0

    arrived, meant = frame.astype({"colour": object, "maker": object, "shelf": object}), frame.copy()
    # What the fit has not seen is missing, as it is to pandas with the categories of the fit.
    arrived.loc[::7, ["colour", "maker", "shelf"]] = ["violet", "nobody", 99]
    meant.loc[::7, ["colour", "maker", "shelf"]] = None
    got = answer(served, arrived).probabilities
    assert got is not None
    np.testing.assert_array_equal(got[:, 1], own_probabilities(model, meant))
