"""What XGBoost and LightGBM have in common."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor
from xgboost import XGBRegressor

from tests.runtime.compiled.edges import assert_identical, to_frame
from tests.runtime.compiled.parity import compiled, to_data


@pytest.fixture(params=[lambda: LGBMRegressor(verbose=-1), XGBRegressor], ids=["lightgbm", "xgboost"])
def booster(request: Any) -> Any:
    return request.param().set_params(n_estimators=9, n_jobs=1)


def test_integers_and_booleans(booster: Any) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"i": rng.integers(0, 2**60, size=200), "b": rng.random(200) < 0.5, "f": rng.random(200)}
    )
    model = booster.fit(frame, frame["f"] * frame["b"] + frame["i"] / 2**60)
    assert_identical(model, frame)


def test_text_is_refused(booster: Any) -> None:
    frame = to_frame(np.random.default_rng(0).normal(size=(50, 2)))
    model = booster.fit(frame, frame["x0"])
    node = compiled(model, to_data(frame))
    odd = frame.astype({"x1": object})
    with pytest.raises(ValueError, match="dtypes"):
        model.predict(odd)
    with pytest.raises(ValueError, match="dtypes"):
        node.output(to_data(odd))
