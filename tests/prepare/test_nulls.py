"""A null in a request is what the model knows as missing: None to one, NaN to another."""

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import mlflow
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from serving.codecs.arrow import arrow_to_inputs
from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import tracking
from tests.support.models import REQUIREMENTS, TREE, fill_registry

CITIES = ["Rome", "Oslo", None, "Bern"] * 20
IS_TARGET = [city is None or city == "Rome" for city in CITIES]


def cities(dtype: str, cells: list[Any] = CITIES) -> pd.DataFrame:
    return pd.DataFrame({"city": pd.Series(cells, dtype=dtype)})


def numbered(dtype: str) -> pd.DataFrame:
    """Beside a column of numbers."""
    return cities(dtype).assign(x=np.arange(len(CITIES)) % 7 / 7)


ENCODED = (
    lambda: make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
    lambda: make_pipeline(
        OrdinalEncoder(encoded_missing_value=-1), RandomForestClassifier(5, random_state=0)
    ),
    lambda: make_pipeline(TargetEncoder(random_state=0, cv=2), LogisticRegression()),
    lambda: make_pipeline(
        SimpleImputer(missing_values=None, strategy="constant", fill_value="none"),
        OneHotEncoder(handle_unknown="ignore"),
        LogisticRegression(),
    ),
)

MODELS: dict[str, tuple[Callable[[], Any], pd.DataFrame]] = {
    **{f"none-{position}": (make, cities("object")) for position, make in enumerate(ENCODED)},
    **{f"nan-{position}": (make, cities("str")) for position, make in enumerate(ENCODED[:3])},
    "none-in-a-column-of-several": (
        lambda: make_pipeline(
            make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough"),
            LogisticRegression(),
        ),
        numbered("object"),
    ),
    "none-in-booleans": (ENCODED[0], cities("object", [True, False, None, True] * 20)),
    "none-in-integers": (ENCODED[0], cities("object", [1, 2, None, 3] * 20)),
}


def log_as(make: Callable[[], Any], rows: pd.DataFrame) -> Callable[[str], Any]:
    def log(name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mlflow.sklearn.log_model(
                make().fit(rows, IS_TARGET),
                name="model",
                registered_model_name=name,
                signature=infer_signature(rows),
                # What MLflow does to try an example takes it seconds.
                input_example=rows.head(8) if name == "none-0" else None,
                serialization_format="skops",
                skops_trusted_types=[*TREE, "numpy.dtype"],
                **REQUIREMENTS,
            )

    return log


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    logs = {name: log_as(make, rows) for name, (make, rows) in MODELS.items()}
    return fill_registry(tmp_path_factory.mktemp("nulls"), logs)


@pytest.fixture(scope="module")
def load(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("home")
    with tracking(uri), pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))

        def load(name: str, runtime: str) -> LoadedModel:
            settings = Settings(MLFLOW_TRACKING_URI=uri, model_name=name, runtime=runtime)
            return LoadedModel(prepare(resolve(settings).champion, settings), settings)

        yield load


def ask(model: LoadedModel, inputs: Any) -> np.ndarray:
    async def stays() -> None:
        await asyncio.Event().wait()

    output = asyncio.run(model.predict(inputs, {}, stays))
    assert output.probabilities is not None
    return output.probabilities


@pytest.mark.parametrize("runtime", ["auto", "native"])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_null_is_what_the_model_was_fitted_with(load: Any, name: str, runtime: str):
    model, (_, rows) = load(name, runtime), MODELS[name]
    assert model.manifest.runtime == ("compiled" if runtime == "auto" else model.manifest.runtime)
    own = mlflow.sklearn.load_model(f"models:/{name}@production")
    some = rows.iloc[[2, 0, 1, 3, 2]]
    records = msgspec.json.decode(
        msgspec.json.encode(some.astype(object).where(some.notna(), None).to_dict("records"))
    )
    for part, frame in ((records, some), *(([records[i]], some.iloc[[i]]) for i in range(5))):
        want = own.predict_proba(frame)
        got = ask(model, model.decoder.predict(msgspec.json.encode({"instances": part}))[0])
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert abs(own.predict_proba(some.iloc[[0]]) - own.predict_proba(some.iloc[[2]])).max() > 0.01
    if "integers" not in name:
        np.testing.assert_allclose(read(model, some), own.predict_proba(some), rtol=0, atol=1e-12)


def read(model: LoadedModel, rows: pd.DataFrame) -> np.ndarray:
    """What the model answers to the rows as an Arrow stream."""
    table = pa.table(
        {name: pa.array([None if pd.isna(c) else c for c in column]) for name, column in rows.items()}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return ask(model, arrow_to_inputs(bytes(sink.getvalue()), model.schema, model.max_rows))
