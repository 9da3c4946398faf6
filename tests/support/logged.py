"""One model of a test's own, from MLflow's `log_model` to a worker's answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import msgspec

from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.protocols.v1 import predictions
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import tracking
from tests.support.models import REQUIREMENTS, fill_registry, register

Log = Callable[[str], Any]


def log_with(flavor: Any, model: Any, **more: Any) -> Log:
    """Returns what logs a model with one of MLflow's flavors."""
    return lambda name: flavor.log_model(
        model, name=name, registered_model_name=name, **({**REQUIREMENTS} | more)
    )


def log_sklearn(model: Any, **more: Any) -> Log:
    """Returns what logs a model of scikit-learn as a pickle, unless another format is given."""
    return log_with(mlflow.sklearn, model, **({"serialization_format": "cloudpickle"} | more))


class Logged:
    """A registry with versions of one model, and the worker that loads them."""

    def __init__(self, folder: Path) -> None:
        self.uri = fill_registry(folder / "registry", {})

    def serve(self, log: Log, **settings: Any) -> tuple[LoadedModel, LoadedModel]:
        """Registers a version, prepares it, and returns it as a worker loads it: as it was prepared, and natively."""
        with tracking(self.uri):
            register("model", log)
            ours = Settings(MLFLOW_TRACKING_URI=self.uri, model_name="model", **settings)
            prepared = prepare(resolve(ours).champion, ours)
        native = ours.model_copy(update={"runtime": "native"})
        return LoadedModel(prepared, ours), LoadedModel(prepared, native)


def answers(model: LoadedModel, instances: list[Any]) -> list[dict[str, Any]]:
    """Returns the predictions of a request."""
    inputs, params = model.decoder.predict(msgspec.json.encode({"instances": instances}))
    output = asyncio.run(model.predict(inputs, params, asyncio.Event().wait))
    return predictions(output, model.manifest)
