"""A model as somebody logs it, prepared and asked as a worker does it, in this process."""

import asyncio
from pathlib import Path
from typing import Any

import mlflow
import msgspec
import pandas as pd
import pytest
from mlflow.models import infer_signature

from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.runtime import Output
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import tracking
from tests.support.models import REQUIREMENTS, fill_registry


def prepared(
    folder: Path, model: Any, rows: pd.DataFrame, flavor: str = "sklearn", **logged: Any
) -> LoadedModel:
    """Logs a model with the signature of the rows, registers it, prepares and loads it."""
    more: dict[str, Any] = {"serialization_format": "cloudpickle"} if flavor == "sklearn" else {}

    def log(name: str) -> Any:
        return getattr(mlflow, flavor).log_model(
            **({"python_model": model} if flavor == "pyfunc" else {_ARGUMENTS[flavor]: model}),
            name=name,
            registered_model_name=name,
            **REQUIREMENTS,
            **({"signature": infer_signature(rows), "input_example": rows.head(50)} | more | logged),
        )

    uri = fill_registry(folder / "registry", {"model": log})
    settings = Settings(MLFLOW_TRACKING_URI=uri, model_name="model", allow_pickle=True)
    with tracking(uri), pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "home"))
        return LoadedModel(prepare(resolve(settings).champion, settings), settings)


_ARGUMENTS = {"sklearn": "sk_model", "xgboost": "xgb_model", "lightgbm": "lgb_model"}


def answer(model: LoadedModel, rows: pd.DataFrame) -> Output:
    """What the model says of rows that come as JSON, missing cells as null."""
    table = rows.set_axis([str(label) for label in rows.columns], axis=1).astype(object)
    body = msgspec.json.encode({"instances": table.where(rows.notna().to_numpy(), None).to_dict("records")})
    inputs, params = model.decoder.predict(body)

    async def stays() -> None:
        await asyncio.Event().wait()

    return asyncio.run(model.predict(inputs, params, stays))
