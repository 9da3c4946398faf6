"""FastAPI and joblib as in tutorials: a pydantic body, a DataFrame, `predict_proba`."""

import os
from typing import Any

import joblib  # type: ignore[import-untyped]
import pandas as pd
from fastapi import FastAPI

from benchmarks.services.body import make_body

Body = make_body()
app = FastAPI()
model = joblib.load(os.environ["BENCHMARK_MODEL"])


@app.post("/predict")
def predict(body: Body) -> dict[str, Any]:  # type: ignore[valid-type]  # made at run time
    """Returns the probabilities of each row; without `async`, as FastAPI recommends for blocking code."""
    rows = pd.DataFrame(body.model_dump()["instances"])  # type: ignore[attr-defined]  # the same
    return {"probabilities": model.predict_proba(rows).tolist()}


@app.get("/health")
async def health() -> dict[str, str]:
    """Returns 200 once the server is up."""
    return {"status": "ok"}
