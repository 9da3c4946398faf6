"""What the service would answer, over every protocol, against what MLflow and the library say."""

import asyncio
import io
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.pyfunc.scoring_server import predictions_to_json
from sklearn.base import is_classifier

from serving.errors import PrepareError, ServingError, UnsupportedMedia
from serving.model.prepared import Prepared
from serving.model.schema import take
from serving.prepare.build import prepare
from serving.prepare.registry.client import resolve
from serving.process.in_flight import Claim, InFlight
from serving.protocols.endpoint import Endpoint, Request, never
from serving.protocols.mlflow import INVOCATIONS
from serving.protocols.v1 import PREDICT, PREDICT_BATCH
from serving.runtime import load_runtime
from serving.runtime.trusted import Trust
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.environment import tracking
from tests.support.models import register
from tests.zoo.collection import MODELS, Example, Rows

MAX_DIFFERENCE = 1e-6
"""As `serving.prepare.checks.parity` allows; of numbers above 1, relative to their size."""

N_ROWS, N_SINGLE_ROWS = 60, 4
N_TIMED_CALLS = 20
NPY, ARROW = "application/x-npy", "application/vnd.apache.arrow.stream"


class Finding(NamedTuple):
    """A row of the table."""

    library: str
    name: str
    runtime: str
    reason: str
    """Why it is not compiled, or was rejected."""
    difference: float
    """The largest; infinite where an answer is of another form."""
    wrong: list[str]
    speed_up: float
    n_compared: int = 0
    """Answers."""


class Said(NamedTuple):
    """What a model says of rows."""

    labels: Any
    probabilities: Any
    values: Any

    @property
    def array(self) -> Any:
        """What `predict_batch` answers."""
        return next(part for part in (self.probabilities, self.labels, self.values) if part is not None)


def find_out(name: str, uri: str, home: Path) -> Finding:
    """Registers a model of the collection, prepares it, asks it, and compares."""
    library, make = MODELS[name]
    with warnings.catch_warnings(), tracking(uri), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("BENTOML_HOME", str(home))
        example = make()
        registered = re.sub(r"\W+", "-", name)
        register(registered, example.log)
        settings = Settings(MLFLOW_TRACKING_URI=uri, model_name=registered, **example.settings)
        try:
            prepared = prepare(resolve(settings).champion, settings)
        except PrepareError as error:
            reason = str(error).partition(" is refused: ")[2] or str(error)
            return Finding(library, name, "rejected", reason, 0.0, [], 1.0)
        own = _own(example, f"models:/{registered}@production")
        model = LoadedModel(prepared, settings)
        differences, wrong = [], []
        for what, rows in _groups(example.rows):
            for protocol, apart in _compare(model, own, rows, is_pyfunc=example.flavor == "pyfunc"):
                differences.append(apart)
                if not apart <= MAX_DIFFERENCE:
                    wrong.append(f"{what}, {protocol}")
        for what, apart in _compare_invocations(model, f"models:/{registered}@production", example.rows):
            differences.append(apart)
            if not apart <= MAX_DIFFERENCE:
                wrong.append(f"{what}, /invocations")
        logged = prepared.folder / "mlflow" / "serving_input_example.json"
        if logged.exists():
            # MLflow writes it to try a served model with.
            try:
                _send(INVOCATIONS, model, logged.read_bytes(), "application/json")
            except ServingError as error:
                wrong.append(f"{logged.name}: {error}")
        manifest = prepared.manifest
        reason = manifest.native_reason or ""
        speed_up = _speed_up(prepared, model)
        return Finding(
            library,
            name,
            manifest.runtime,
            reason,
            max(differences, default=np.inf),
            wrong,
            speed_up,
            len(differences),
        )


def _own(example: Example, uri: str) -> Callable[[Any], Said]:
    """What the model says without the service."""
    if example.flavor == "pyfunc":
        pyfunc = mlflow.pyfunc.load_model(uri)
        return lambda rows: Said(None, None, _records(pyfunc.predict(rows)))
    model = getattr(mlflow, example.flavor).load_model(uri)
    if type(model).__name__ == "Booster":
        is_probability = "softmax" not in str(_objective(model)) and "reg" not in str(_objective(model))
        return lambda rows: _booster_said(_raw(model, rows), is_probability=is_probability)

    def say(rows: Any) -> Said:
        predicted = np.asarray(model.predict(rows))
        if not is_classifier(model):
            return Said(None, None, predicted)
        has_one = isinstance(getattr(model, "classes_", None), np.ndarray)
        probabilities = model.predict_proba(rows) if has_one and hasattr(model, "predict_proba") else None
        return Said(predicted, probabilities, None)

    return say


def _objective(booster: Any) -> str:
    if hasattr(booster, "save_config"):
        return str(json.loads(booster.save_config())["learner"]["objective"]["name"])
    return str(booster.dump_model(num_iteration=1)["objective"])


def _raw(booster: Any, rows: Any) -> Any:
    if not hasattr(booster, "save_config"):
        return booster.predict(rows)
    import xgboost

    return booster.predict(xgboost.DMatrix(rows, enable_categorical=True))


def _booster_said(raw: Any, *, is_probability: bool) -> Said:
    if not is_probability:
        return Said(None, None, raw)
    if raw.ndim == 1:
        return Said((raw > 0.5).astype(int), np.column_stack([1 - raw, raw]), None)
    return Said(raw.argmax(axis=1), raw, None)


def _records(result: Any) -> Any:
    """What a pyfunc returned, one entry for each row."""
    if isinstance(result, dict):
        result = pd.DataFrame(result)
    if isinstance(result, pd.DataFrame):
        return result.iloc[:, 0].to_numpy() if result.shape[1] == 1 else result.to_dict("records")
    return result if isinstance(result, list) else np.asarray(result)


def _groups(rows: Rows) -> Iterator[tuple[str, Rows]]:
    some = rows[:N_ROWS]
    yield "rows of the fit", some
    for row in range(N_SINGLE_ROWS):
        yield f"row {row} alone", some[row : row + 1]
    if isinstance(rows, np.ndarray):
        return
    for what, change in (("nulls", _null), ("unseen texts", _unseen)):
        one = some.iloc[:1]
        if isinstance(rows, pd.Series):
            changed = change(rows)
        else:
            changed = pd.DataFrame({name: change(column) for name, column in rows.items()})
        if changed.equals(one):
            continue
        yield f"a row of {what}", changed
        yield f"{what} beside others", pd.concat([changed, some.iloc[:3]])


def _is_text(cells: pd.Series) -> bool:
    return isinstance(cells.iloc[0], str) and not isinstance(cells.dtype, pd.CategoricalDtype)


def _null(cells: pd.Series) -> pd.Series:
    """The first cell of a column as a missing one: as the fit has it, else as pandas has it."""
    first = cells.iloc[:1]
    if first.dtype.kind in "iub" or isinstance(first.iloc[0], list):
        return first
    gaps = [cell for cell in cells if cell is None or cell is pd.NA]
    return pd.Series(gaps[:1] or [np.nan], index=first.index, dtype=cells.dtype)


def _unseen(cells: pd.Series) -> pd.Series:
    first = cells.iloc[:1]
    return pd.Series(["never seen"], index=first.index, dtype=cells.dtype) if _is_text(cells) else first


def _compare(
    model: LoadedModel, own: Callable[[Any], Said], rows: Rows, *, is_pyfunc: bool
) -> Iterator[tuple[str, float]]:
    """Yields how far the answer over each protocol is from the model's own; infinite where only one of them answers."""
    try:
        expected: Said | None = own(rows)
    except Exception:  # the model refuses the rows, and so must the service
        if is_pyfunc:
            return  # MLflow itself refuses nulls that the service hands on
        expected = None
    for protocol, ask in PROTOCOLS.items():
        try:
            got = ask(model, rows)
        except UnsupportedMedia:
            continue  # objects, which only JSON carries
        except ServingError as error:
            if expected is not None:
                yield f"{protocol}: {error}", np.inf
            continue
        if got is None:
            continue
        if expected is None:
            yield f"{protocol}: answered what the model refuses", np.inf
        elif isinstance(got, Said):
            yield protocol, max(difference(want, have) for want, have in zip(expected, got, strict=True))
        else:
            yield protocol, difference(expected.array, got)


def _compare_invocations(model: LoadedModel, uri: str, rows: Rows) -> Iterator[tuple[str, float]]:
    """Yields how far the answers of `/invocations` are from those of MLflow's pyfunc, as its own server writes them."""
    pyfunc = mlflow.pyfunc.load_model(uri)
    for what, some in _groups(rows):
        out = io.StringIO()
        try:
            predictions_to_json(pyfunc.predict(some), out)
        except Exception:  # MLflow refuses the types of these rows, before it asks the model
            continue
        data: dict[str, Any] = {"data": _json_rows(some)}
        if isinstance(some, pd.DataFrame):
            data["columns"] = [str(label) for label in some.columns]
        else:
            data["data"] = [row if isinstance(row, list) else [row] for row in data["data"]]
        body = json.dumps({"dataframe_split": data}).encode()
        try:
            got = json.loads(_send(INVOCATIONS, model, body, "application/json"))["predictions"]
        except ServingError:
            yield what, np.inf
            continue
        yield what, difference(json.loads(out.getvalue())["predictions"], got)


def difference(expected: Any, got: Any) -> float:
    """How far two answers are apart: of numbers above 1 relative to their size, infinite where they cannot be compared."""
    if expected is None or got is None:
        return 0.0 if expected is got else np.inf
    want, have = np.asarray(expected), np.asarray(got)
    if want.dtype.kind not in "biuf":
        return 0.0 if _as_json(want.tolist()) == _as_json(have.tolist()) else np.inf
    if have.dtype == object:
        have = np.where(have == None, np.nan, have).astype(np.float64)  # noqa: E711  # JSON has no NaN
    if want.shape != have.shape or (want.dtype.kind == "b") != (have.dtype.kind == "b"):
        return np.inf
    if want.dtype.kind == "b":
        return 0.0 if (want == have).all() else np.inf
    want, have = want.astype(np.float64), have.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(want - have) / np.maximum(1, np.abs(want))
    apart = np.where((want == have) | (np.isnan(want) & np.isnan(have)), 0, apart)
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))


def _as_json(value: Any) -> Any:
    """Objects as JSON has them, which has no NaN."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


# The protocols: how rows are sent, and answers are read.


def _send(endpoint: Endpoint, model: LoadedModel, body: bytes, content_type: str) -> bytes:
    request = Request(body, content_type, "zoo", never, Claim(InFlight(1)))

    async def answer() -> bytes:
        output = await model.predict(*endpoint.decode(model, request), never)
        return endpoint.encode(output, model, request)

    return asyncio.run(answer())


def _json_cell(cell: Any) -> Any:
    if isinstance(cell, (list, np.ndarray)):
        return list(cell)
    if pd.isna(cell):
        return None
    if isinstance(cell, pd.Timestamp):
        return cell.isoformat()
    return cell.item() if isinstance(cell, np.generic) else cell


def _json_rows(rows: Rows) -> list[Any]:
    if isinstance(rows, np.ndarray):
        return list(rows.tolist())
    if isinstance(rows, pd.Series):
        return [_json_cell(cell) for cell in rows]
    columns = [[_json_cell(cell) for cell in rows.iloc[:, i]] for i in range(rows.shape[1])]
    return [list(row) for row in zip(*columns, strict=True)]


def _json_predict(model: LoadedModel, rows: Rows) -> Said:
    instances = _json_rows(rows)
    if isinstance(rows, pd.DataFrame):
        names = [str(label) for label in rows.columns]
        instances = [dict(zip(names, row, strict=True)) for row in instances]
    body = json.dumps({"instances": instances}).encode()
    entries = json.loads(_send(PREDICT, model, body, "application/json"))["predictions"]

    def part(key: str, read: Callable[[Any], Any] = lambda value: value) -> Any:
        return [read(entry[key]) for entry in entries] if key in entries[0] else None

    return Said(part("label"), part("probabilities", lambda named: list(named.values())), part("value"))


def _json_batch(model: LoadedModel, rows: Rows) -> Any:
    body = json.dumps(_json_rows(rows)).encode()
    return json.loads(_send(PREDICT_BATCH, model, body, "application/json"))


def _npy(model: LoadedModel, rows: Rows) -> Any:
    array = rows
    if isinstance(rows, pd.DataFrame):
        if all(dtype.kind in "iuf" for dtype in rows.dtypes if isinstance(dtype, np.dtype)) and all(
            isinstance(dtype, np.dtype) for dtype in rows.dtypes
        ):
            array = rows.to_numpy(dtype=np.float64)
        elif any(rows.isna().any()) or any(isinstance(cell, list) for cell in rows.iloc[0]):
            return None  # the form has no word for missing text, nor for lists
        else:
            fields = {
                str(n): np.array([c.to_datetime64() if isinstance(c, pd.Timestamp) else c for c in cells])
                for n, cells in rows.items()
            }
            array = np.rec.fromarrays(
                list(fields.values()), dtype=[(n, values.dtype) for n, values in fields.items()]
            ).view(np.ndarray)
    elif isinstance(rows, pd.Series):
        if rows.isna().any():
            return None
        array = rows.to_numpy(dtype=np.str_)
    sink = io.BytesIO()
    np.save(sink, np.asarray(array), allow_pickle=False)
    return np.load(io.BytesIO(_send(PREDICT_BATCH, model, sink.getvalue(), NPY)), allow_pickle=False)


def _arrow(model: LoadedModel, rows: Rows) -> Any:
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2:
            return None
        named: dict[str, Any] = {str(i): pa.array(rows[:, i]) for i in range(rows.shape[1])}
    else:
        frame = rows.to_frame("0") if isinstance(rows, pd.Series) else rows
        named = {
            str(label): pa.array([None if not isinstance(c, list) and pd.isna(c) else c for c in column])
            if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object
            else pa.array(column, from_pandas=True)
            for label, column in frame.items()
        }
    table = pa.table(named)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answered = pa.ipc.open_stream(_send(PREDICT_BATCH, model, bytes(sink.getvalue()), ARROW)).read_all()
    columns = [column.to_numpy() for column in answered.columns]
    return np.column_stack(columns) if len(columns) > 1 else columns[0]


PROTOCOLS: dict[str, Callable[[LoadedModel, Any], Any]] = {
    "predict": _json_predict,
    "predict_batch": _json_batch,
    ".npy": _npy,
    "Arrow": _arrow,
}


def _speed_up(prepared: Prepared, model: LoadedModel) -> float:
    """How many times longer a call for one row takes natively."""
    manifest = prepared.manifest
    if manifest.runtime == "native":
        return 1.0
    inputs, params = model.decoder.predict(prepared.examples)
    row = take(inputs, 0, 1)
    seconds = []
    for name in (manifest.runtime, "native"):
        runtime = load_runtime(name, prepared.folder, prepared.schema, Trust.of(manifest), n_threads=1)
        calls = []
        for _ in range(N_TIMED_CALLS):
            started = time.perf_counter()
            runtime.predict(row, params)
            calls.append(time.perf_counter() - started)
        seconds.append(min(calls))
    return seconds[1] / seconds[0]
