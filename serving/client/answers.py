"""Answers → frames, lists, arrays and errors."""

import io
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import numpy as np

from .bodies import ARROW, NPY
from .cells import Array
from .errors import ClientError, Detail, InvalidInput, Refused, TimedOut, Unavailable, UnexpectedAnswer
from .rows import Rows

if TYPE_CHECKING:
    import pandas as pd


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: httpx.Headers
    content: bytes


def decode_predictions(answer: Answer) -> dict[str, Any]:
    """Returns the answer of `predict`."""
    try:
        said = json.loads(answer.content)
        if all("label" in one or "value" in one for one in said["predictions"]):
            return dict(said)
    except (ValueError, LookupError, TypeError):
        pass
    raise _unexpected(answer, "predictions")


def decode_array(answer: Answer) -> Array:
    """Returns the answer of `predict_batch`, in the request's media type, or of `predict`, as an array."""
    media_type = answer.headers.get("content-type", "")
    try:
        if media_type == NPY:
            return np.asarray(np.load(io.BytesIO(answer.content), allow_pickle=False))
        if media_type == ARROW:
            import pyarrow as pa

            table = pa.ipc.open_stream(answer.content).read_all()
            columns = [column.to_numpy() for column in table.columns]
            return columns[0] if table.column_names in (["label"], ["value"]) else np.column_stack(columns)
        said = json.loads(answer.content)
        return _list_to_array(_predicted(said["predictions"]) if isinstance(said, dict) else list(said))
    except (ValueError, OSError, LookupError, TypeError):
        raise _unexpected(answer, "an array") from None


def _predicted(predictions: list[Any]) -> list[Any]:
    """Returns each row's probabilities if there are any; else its label or value."""
    if predictions and "probabilities" in predictions[0]:
        return [list(one["probabilities"].values()) for one in predictions]
    return _labels(predictions)


def _labels(predictions: list[Any]) -> list[Any]:
    return [one["label"] if "label" in one else one["value"] for one in predictions]


def _list_to_array(values: list[Any]) -> Array:
    array = np.array(values)
    if array.dtype == object and {float, int, type(None)}.issuperset(map(type, array.flat)):
        return array.astype(np.float64)  # null is NaN
    return array


def to_frame(predictions: list[Any], index: Any) -> "pd.DataFrame":
    """Returns `prediction`, or one such column per output, and a `probability_` per class."""
    import pandas as pd

    columns: dict[str, Any] = {}
    values = _labels(predictions)
    first = values[0] if values else None
    if isinstance(first, dict):
        columns = {f"prediction_{name}": [value.get(name) for value in values] for name in first}
    elif isinstance(first, list) and {len(value) for value in values} == {len(first)}:
        columns = {f"prediction_{n}": list(output) for n, output in enumerate(zip(*values, strict=True))}
    else:
        columns = {"prediction": values}
    if predictions and "probabilities" in predictions[0]:
        for name in predictions[0]["probabilities"]:
            one_class = [one["probabilities"][name] for one in predictions]
            columns[f"probability_{name}"] = np.array(one_class, dtype=np.float64)
    # A forecast's rows are not those of the request.
    return pd.DataFrame(columns, index=index if len(index) == len(predictions) else None)


def _unexpected(answer: Answer, expected: str) -> UnexpectedAnswer:
    media_type = answer.headers.get("content-type", "no media type").partition(";")[0]
    moved = "; redirects are not followed: use the URL that it leads to" if 300 <= answer.status < 400 else ""
    return UnexpectedAnswer(
        f"expected {expected} from the model server, got status {answer.status} with {media_type}{moved}",
        answer.status,
    )


def to_error(answer: Answer, rows: Rows, start: int, stop: int) -> ClientError:
    """Returns the error for an answer whose status is not 200."""
    status = answer.status
    if status < 400:
        return _unexpected(answer, "an answer")
    kind = {422: InvalidInput, 504: TimedOut}.get(status)
    kind = kind or (Refused if status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS else Unavailable)
    try:
        said = json.loads(answer.content)
        error, request_id = said["error"], said["request_id"]
        code, message = error["code"], str(error["message"])
        details = [_detail(one, rows, start) for one in error["details"]]
    except (ValueError, LookupError, TypeError):
        return kind(f"{_unexpected(answer, 'an answer')}; a proxy may have sent it", status)
    if details and details[0].row is not None:
        message = re.sub(r"\brow \d+", f"row {details[0].row}", message, count=1)
    elif stop - start < rows.n_rows:
        message += f" (rows {start} to {stop - 1})"
    if kind is InvalidInput and rows.is_series and details and details[0].column is None:
        message += (
            "; a Series has one value per row: pass a row as frame.iloc[[n]], and a column as frame[[name]]"
        )
    return kind(f"{status} {code}: {message} (request {request_id})", status, code, request_id, details)


def _detail(said: dict[str, Any], rows: Rows, start: int) -> Detail:
    row = said.get("row")
    row = None if row is None else start + row
    return Detail(said["expected"], said["got"], row, said.get("column"), rows.label(row))
