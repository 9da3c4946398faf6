"""The same rows over every protocol and media type, and what the answers say in the model's own terms."""

import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.http.in_process import Application
from tests.http.messages import ARROW, NPY, arrow, npy, to_instances

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"

Rows = Any
"""A frame, or an array for a model of tensors."""


class Dialect(NamedTuple):
    """How rows are sent over a protocol, and its answers read."""

    path: str
    media_type: str
    encode: Callable[[Rows], bytes]
    decode: Callable[[bytes], Any]
    """Returns the answers as JSON has them: a list with one for each row."""
    answers: str
    """What they are: `pyfunc`, what `mlflow.pyfunc` returns; `labels`, or values; `probabilities`, else as `labels`."""
    takes: type | tuple[type, ...] = (pd.DataFrame, np.ndarray)

    def ask(self, application: Application, rows: Rows) -> Any:
        """Returns the application's answers for rows."""
        headers = {"content-type": self.media_type}
        response = application.post(self.path, content=self.encode(rows), headers=headers)
        assert response.status_code == 200, response.text
        return self.decode(response.content)


def _predictions(body: bytes) -> Any:
    return json.loads(body)["predictions"]


def _entries(key: str) -> Callable[[bytes], Any]:
    def read(body: bytes) -> Any:
        entries = _predictions(body)
        if key == "probabilities" and key in entries[0]:
            return [list(entry[key].values()) for entry in entries]
        return [entry.get("label", entry.get("value")) for entry in entries]

    return read


def _cells(rows: Rows) -> Any:
    """Cells as JSON has them."""
    if isinstance(rows, np.ndarray):
        return rows.tolist()
    return rows.astype(object).where(rows.notna(), None).to_numpy().tolist()


def _instances(rows: Rows) -> Any:
    return rows.tolist() if isinstance(rows, np.ndarray) else to_instances(rows)


def _dumps(key: str, form: Callable[[Rows], Any]) -> Callable[[Rows], bytes]:
    return lambda rows: json.dumps({key: form(rows)}).encode()


def _split(rows: Rows) -> Any:
    if isinstance(rows, np.ndarray):
        return {"data": rows.tolist()}
    # Shuffled, and with a column that the model does not have.
    mixed = rows.iloc[:, ::-1].assign(unknown="x")
    return {"columns": list(mixed.columns), "index": list(range(len(mixed))), "data": _cells(mixed)}


def _columns(rows: Rows) -> Any:
    if isinstance(rows, np.ndarray):
        return rows.tolist()
    return dict(zip(rows, zip(*_cells(rows), strict=True), strict=True))


def _csv(rows: Rows) -> bytes:
    frame = pd.DataFrame(rows) if isinstance(rows, np.ndarray) else rows.assign(unknown="x")
    return frame.to_csv(index=isinstance(rows, pd.DataFrame)).encode()


def _parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    frame = pd.DataFrame(rows).rename(columns=str) if isinstance(rows, np.ndarray) else rows
    frame.to_parquet(out)
    return out.getvalue()


def _arrow(rows: Rows) -> bytes:
    return arrow(pa.Table.from_pandas(rows, preserve_index=False))


def _arrow_columns(body: bytes) -> Any:
    columns = [column.to_numpy() for column in pa.ipc.open_stream(body).read_all().columns]
    return (np.column_stack(columns) if len(columns) > 1 else columns[0]).tolist()


def _npy_rows(rows: Rows) -> bytes:
    return npy(rows if isinstance(rows, np.ndarray) else rows.to_numpy(dtype=np.float64))


JSON = "application/json"
INVOCATIONS, PREDICT, BATCH = "/invocations", "/v1/predict", "/v1/predict_batch"

DIALECTS = {
    "predict": Dialect(
        PREDICT, JSON, _dumps("instances", _instances), _entries("probabilities"), "probabilities"
    ),
    "predict, labels": Dialect(PREDICT, JSON, _dumps("instances", _instances), _entries("label"), "labels"),
    "predict_batch": Dialect(
        BATCH, JSON, lambda rows: json.dumps(_cells(rows)).encode(), json.loads, "probabilities"
    ),
    ".npy": Dialect(
        BATCH, NPY, _npy_rows, lambda b: np.load(io.BytesIO(b), allow_pickle=False).tolist(), "probabilities"
    ),
    "Arrow": Dialect(BATCH, ARROW, _arrow, _arrow_columns, "probabilities", pd.DataFrame),
    "dataframe_split": Dialect(INVOCATIONS, JSON, _dumps("dataframe_split", _split), _predictions, "pyfunc"),
    "dataframe_records": Dialect(
        INVOCATIONS, JSON, _dumps("dataframe_records", _instances), _predictions, "pyfunc", pd.DataFrame
    ),
    "instances": Dialect(INVOCATIONS, JSON, _dumps("instances", _instances), _predictions, "pyfunc"),
    "inputs": Dialect(INVOCATIONS, JSON, _dumps("inputs", _columns), _predictions, "pyfunc"),
    "CSV": Dialect(INVOCATIONS, CSV, _csv, _predictions, "pyfunc"),
    "Parquet": Dialect(INVOCATIONS, PARQUET, _parquet, _predictions, "pyfunc"),
}
"""Each is asked for the same rows, and has to give the model's own numbers."""
