"""Every flavor through one seam: what is served equals what the model itself says."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import msgspec
import numpy as np
import pandas as pd
import pytest

from serving.errors import ModelRefused
from serving.model.schema import Inputs
from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.protocols.v1 import batch_array, predictions
from serving.runtime import Output
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import tracking
from tests.support.models import frame
from tests.support.prepared import take_prepared

TOLERANCE = 1e-12


@pytest.fixture(scope="module", params=["auto", "native"])
def load(registry_uri: str, store: Path, request: Any) -> Callable[[str], LoadedModel]:
    """Loads a model of the registry, prepared once for the run, as a worker does: compiled where it can be, and natively."""
    take_prepared(store, registry_uri)
    with tracking(registry_uri), pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(store))
        loaded: dict[str, LoadedModel] = {}

        def load(name: str) -> LoadedModel:
            if name not in loaded:
                settings = Settings(
                    MLFLOW_TRACKING_URI=registry_uri,
                    model_name=name,
                    runtime=request.param,
                    allow_pickle=True,
                )
                loaded[name] = LoadedModel(prepare(resolve(settings).champion, settings), settings)
            return loaded[name]

        yield load


def served(
    model: LoadedModel, rows: pd.DataFrame, params: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What the model answers to rows that came as JSON."""
    body = msgspec.json.encode({"instances": rows.to_dict("records"), "params": params})
    return predictions(predict(model, *model.decoder.predict(body)), model.manifest)


def predict(model: LoadedModel, inputs: Inputs, params: dict[str, Any]) -> Output:
    """What the model says, called as a request calls it."""

    async def stays() -> None:
        await asyncio.Event().wait()

    return asyncio.run(model.predict(inputs, params, stays))


def own(name: str, flavor: Any = None) -> Any:
    """The model as MLflow itself loads it."""
    return (flavor or mlflow.sklearn).load_model(f"models:/{name}@production")


def column(entries: list[dict[str, Any]], key: str) -> list[Any]:
    return [entry[key] for entry in entries]


def probabilities(entries: list[dict[str, Any]]) -> np.ndarray:
    return np.array([list(entry["probabilities"].values()) for entry in entries])


@pytest.mark.parametrize("name", ["cancer", "wine", "iris"])
def test_classifier_gives_its_own_labels_and_probabilities(load: Any, name: str) -> None:
    model, rows = own(name), frame(name)
    entries = served(load(name), rows)
    np.testing.assert_allclose(probabilities(entries), model.predict_proba(rows), rtol=0, atol=TOLERANCE)
    assert column(entries, "label") == model.predict(rows).tolist()
    assert list(entries[0]["probabilities"]) == [str(label) for label in model.classes_]
    assert load(name).manifest.task == "classification"


def test_tensor_signature_takes_nested_lists(load: Any) -> None:
    from sklearn.datasets import load_digits

    X = load_digits().data
    body = msgspec.json.encode({"instances": X.tolist()})
    model = load("digits")
    output = predict(model, *model.decoder.predict(body))
    assert output.probabilities is not None
    np.testing.assert_allclose(output.probabilities, own("digits").predict_proba(X), rtol=0, atol=TOLERANCE)


def test_regressor_gives_values(load: Any) -> None:
    rows = frame("diabetes")
    values = column(served(load("diabetes"), rows), "value")
    np.testing.assert_allclose(values, own("diabetes").predict(rows), rtol=0, atol=TOLERANCE)
    assert load("diabetes").manifest.task == "regression"


def test_multi_output_regressor_gives_a_list_per_row(load: Any) -> None:
    rows = frame("diabetes")
    values = column(served(load("multi-regression"), rows), "value")
    np.testing.assert_allclose(values, own("multi-regression").predict(rows), rtol=0, atol=TOLERANCE)


def test_multi_output_classifier_gives_a_label_per_output(load: Any) -> None:
    rows = frame("wine")
    labels = column(served(load("multi-classification"), rows), "label")
    assert labels == own("multi-classification").predict(rows).tolist()


def test_classifier_without_probabilities_gives_labels(load: Any) -> None:
    rows = frame("wine")
    entries = served(load("no-probabilities"), rows)
    assert set(entries[0]) == {"label"}
    assert column(entries, "label") == own("no-probabilities").predict(rows).tolist()


def test_other_estimator_gives_what_predict_returns(load: Any) -> None:
    rows = frame("wine")
    assert column(served(load("clusters"), rows), "value") == own("clusters").predict(rows).tolist()
    assert load("clusters").manifest.task == "other"


def test_xgboost_estimator_gives_its_own_probabilities(load: Any) -> None:
    rows = frame("wine")
    model = own("xgboost-estimator", mlflow.xgboost)
    entries = served(load("xgboost-estimator"), rows)
    np.testing.assert_allclose(probabilities(entries), model.predict_proba(rows), rtol=0, atol=TOLERANCE)
    assert column(entries, "label") == model.predict(rows).tolist()


def test_xgboost_booster_gives_the_probability_of_its_objective(load: Any) -> None:
    import xgboost

    rows = frame("cancer")
    raw = own("xgboost-booster", mlflow.xgboost).predict(xgboost.DMatrix(rows))
    entries = served(load("xgboost-booster"), rows)
    np.testing.assert_allclose(probabilities(entries)[:, 1], raw, rtol=0, atol=TOLERANCE)
    assert column(entries, "label") == (raw > 0.5).astype(int).tolist()


def test_lightgbm_estimator_gives_its_own_values(load: Any) -> None:
    rows = frame("diabetes")
    values = column(served(load("lightgbm-estimator"), rows), "value")
    expected = own("lightgbm-estimator", mlflow.lightgbm).predict(rows)
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCE)
    assert load("lightgbm-estimator").manifest.task == "regression"


def test_lightgbm_booster_gives_its_own_probabilities(load: Any) -> None:
    rows = frame("wine")
    raw = own("lightgbm-booster", mlflow.lightgbm).predict(rows)
    entries = served(load("lightgbm-booster"), rows)
    np.testing.assert_allclose(probabilities(entries), raw, rtol=0, atol=TOLERANCE)
    assert column(entries, "label") == raw.argmax(axis=1).tolist()


def test_pyfunc_gives_records_and_takes_parameters(load: Any) -> None:
    rows = pd.DataFrame({"a": [1.5, -4.0], "b": [1, 2], "bonus": [10.0, None]}).astype(object)
    rows = rows.where(rows.notna(), None)
    values = column(served(load("custom pyfunc"), rows, {"factor": 2.0}), "value")
    assert values == [{"total": 25.0, "sign": "plus"}, {"total": -4.0, "sign": "minus"}]  # by hand


def test_pyfunc_default_parameters_and_absent_optional_column(load: Any) -> None:
    rows = pd.DataFrame({"a": [1.5], "b": [1]})
    assert column(served(load("custom pyfunc"), rows), "value") == [{"total": 2.5, "sign": "plus"}]


def test_model_without_a_signature_is_refused_with_the_remedy(load: Any) -> None:
    with pytest.raises(ModelRefused, match="infer_signature"):
        load("no-signature")


def test_batch_array_of_a_classifier_is_its_probabilities(load: Any) -> None:
    rows = frame("cancer")
    model = load("cancer")
    output = predict(model, model.decoder.batch(msgspec.json.encode(rows.to_numpy().tolist())), {})
    expected = own("cancer").predict_proba(rows)
    np.testing.assert_allclose(batch_array(output), expected, rtol=0, atol=TOLERANCE)


def test_preparing_again_redoes_nothing(load: Any, registry_uri: str) -> None:
    load("wine")
    settings = Settings(MLFLOW_TRACKING_URI=registry_uri, model_name="wine")
    resolved = resolve(settings).champion
    first = prepare(resolved, settings)
    before = sorted((path, path.stat().st_mtime_ns) for path in first.folder.rglob("*"))
    again = prepare(resolved, settings)
    assert again == first
    assert sorted((path, path.stat().st_mtime_ns) for path in again.folder.rglob("*")) == before


@pytest.mark.parametrize(
    "name",
    [
        *("cancer", "wine", "iris", "digits", "diabetes", "multi-regression", "no-probabilities"),
        *(
            "strict-categories",
            "xgboost-estimator",
            "xgboost-booster",
            "lightgbm-estimator",
            "lightgbm-booster",
        ),
    ],
)
def test_what_people_register_most_is_compiled(load: Any, name: str) -> None:
    manifest = load(name).manifest
    assert manifest.runtime == "compiled", manifest.native_reason
    assert manifest.parity.rows >= 10_000
    assert manifest.parity.max_abs_difference <= 1e-12


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("clusters", "GaussianMixture has no compiled form"),
        ("custom pyfunc", "a model that is called through mlflow.pyfunc runs its own code"),
    ],
)
def test_what_is_not_compiled_says_why(load: Any, name: str, reason: str) -> None:
    manifest = load(name).manifest
    assert (manifest.runtime, manifest.native_reason, manifest.parity) == ("native", reason, None)


def test_the_steps_that_can_be_compiled_are(load: Any) -> None:
    manifest = load("multi-classification").manifest
    assert (manifest.runtime, manifest.native_steps) == ("mixed", ["multioutputclassifier"])
    assert manifest.native_reason == ("step 'multioutputclassifier': NearestCentroid has no compiled form")


def test_a_model_without_an_example_gets_one_that_its_encoders_know(load: Any) -> None:
    model = load("strict-without-example")
    (instance,) = msgspec.json.decode(model.examples)["instances"]
    assert instance["colour"] == "blue"
