"""What the tests of HTTP send and get: bodies that are not JSON, and errors."""

import io
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa

SECRET = "4242.424242"
"""A caller's value that no answer may repeat."""

NPY, ARROW = "application/x-npy", "application/vnd.apache.arrow.stream"


def to_instances(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: a missing value is null."""
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def probabilities(answer: dict[str, Any]) -> np.ndarray:
    return np.array([list(entry["probabilities"].values()) for entry in answer["predictions"]])


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def arrow(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer that keeps to the form of errors."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    assert SECRET not in response.text
    assert "\n" not in body["error"]["message"]
    assert "Traceback" not in response.text
    return dict(body["error"])
