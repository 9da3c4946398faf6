"""BentoML services as in its tutorial, with a model from a joblib file."""

import os
from typing import Any

import bentoml
import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd


@bentoml.service
class Churn:
    """One request, one call of the model."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCHMARK_MODEL"])

    @bentoml.api  # type: ignore[untyped-decorator]  # BentoML loads its names lazily
    def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Returns the probabilities of each row."""
        return np.asarray(self.model.predict_proba(pd.DataFrame(rows)))


@bentoml.service
class BatchableChurn:
    """Rows of several requests, one call of the model. A batch is a list: DataFrames hang BentoML 1.4.39."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCHMARK_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=200)  # type: ignore[untyped-decorator]  # BentoML loads its names lazily
    def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Returns the probabilities of each row."""
        return np.asarray(self.model.predict_proba(pd.DataFrame(rows)))
