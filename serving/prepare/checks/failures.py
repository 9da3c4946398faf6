"""Explains to its author why a model cannot predict rows that fit its signature.

An exception's message may contain values of the rows. The explanation says where it was raised, and what the model,
the signature and the rows reveal: columns, types, counts.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.model.schema import Inputs, Kind, Schema, take
from serving.prepare.checks.gate import OTHER_ROWS
from serving.prepare.checks.parity import ask
from serving.runtime import Output, WrongRowCount
from serving.runtime.compiled.nodes import type_name
from serving.runtime.native import NativeRuntime

MAX_NAMES = 10
"""Columns named per sentence."""


def why_not_predicted(
    runtime: NativeRuntime, schema: Schema, inputs: Inputs, error: Exception, *, is_logged: bool
) -> str:
    """Returns a sentence: what was tried, what failed where, which columns are involved, and what to do.

    Args:
        runtime: the model.
        schema: its inputs.
        inputs: the rows that it was given.
        error: what it raised.
        is_logged: whether they come from its input example; else they were generated from the signature.
    """
    if isinstance(error, WrongRowCount):
        return f"{error}{OTHER_ROWS}"
    tried = (
        f"it cannot predict the {_count(inputs.n_rows, 'row')} of its own input example"
        if is_logged
        else "it was logged without an input example, and cannot predict a row made from its signature"
    )
    clues = [*_clues(runtime, schema, inputs, error)]
    todo = (
        "predict the example with mlflow.pyfunc.load_model where it was trained, and log it again with the signature "
        "and an example of its training data"
        if is_logged
        else "log it with input_example=X.head(50)"
    )
    return f"{tried}: {type(error).__name__} in {where_raised(error)}{''.join(f'; {clue}' for clue in clues)}; {todo}"


def _clues(runtime: NativeRuntime, schema: Schema, inputs: Inputs, error: Exception) -> Iterator[str]:
    model = runtime.model
    step = _failing_step(runtime, inputs)
    if step is not None:
        yield f"its step {step[0]!r} ({type(step[1]).__name__}) raises it"
    columns = _column_clue(model, schema)
    if columns is not None:
        yield columns
        return
    named = [column.name for column in schema.columns if column.name in _words(error)]
    if named:
        yield f"the error names {_names(named)}"
    missing = [
        column.name
        for column, values in zip(schema.columns, inputs.columns, strict=True)
        if _is_missing(values).any()
    ]
    if missing:
        yield f"the rows have missing values in {_names(missing)}"
    texts = [column.name for column in schema.columns if column.type.kind is Kind.STRING]
    if (
        texts
        and step is None
        and not named
        and isinstance(error, (ValueError, TypeError))
        and model is not None
    ):
        yield f"{_names(texts)} {'is' if len(texts) == 1 else 'are'} text, which it may not turn into numbers"
    if inputs.n_rows > 1:
        refused = [
            row + 1
            for row in range(inputs.n_rows)
            if not isinstance(ask(lambda rows: runtime.predict(rows, {}), take(inputs, row, row + 1)), Output)
        ]
        if len(refused) < inputs.n_rows:
            rows = ", ".join(map(str, refused)) if refused else "none of them"
            yield f"alone, it refuses {rows} of the {inputs.n_rows} rows"


def _column_clue(model: Any, schema: Schema) -> str | None:
    """How the columns that the model was fitted on differ from its signature's."""
    fitted = getattr(model, "feature_names_in_", None)
    # LightGBM replaces blanks in names by underscores.
    if fitted is not None and not type_name(model).startswith("lightgbm."):
        absent = [str(name) for name in fitted if str(name) not in schema.names]
        if absent:
            return f"it was fitted on {_names(absent)}, which its signature does not have"
        more = [name for name in schema.names if name not in {str(name) for name in fitted}]
        if more:
            return f"its signature has {_names(more)}, which it was not fitted on"
    n_fitted = getattr(model, "n_features_in_", None)
    is_table = all(column.type.kind is not Kind.TENSOR for column in schema.columns)
    if isinstance(n_fitted, int) and is_table and n_fitted != len(schema.columns):
        return (
            f"it was fitted on {_count(n_fitted, 'column')}, and its signature has "
            f"{_count(len(schema.columns), 'column')}"
        )
    return None


def _failing_step(runtime: NativeRuntime, inputs: Inputs) -> tuple[str, Any] | None:
    """The first step of a pipeline that raises on the output of the steps before."""
    rows: Any = runtime.frame_of(inputs)
    for name, step in getattr(runtime.model, "steps", None) or []:
        if step is None or step == "passthrough":
            continue
        try:
            rows = step.transform(rows) if hasattr(step, "transform") else step.predict(rows)
        except Exception:  # noqa: BLE001  # found
            return str(name), step
    return None


def _words(error: BaseException) -> set[str]:
    """The quoted parts and longer words of an exception's message; used only to find column names."""
    text = str(error)
    words = {word for word in text.replace(",", " ").split() if len(word) > 2}
    return {*words, *text.split("'")[1::2], *text.split('"')[1::2]}


def _is_missing(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if values.dtype.kind == "O":
        return np.array([value is None or value != value for value in values.tolist()], dtype=bool)  # noqa: PLR0124
    return (
        np.isnan(values)
        if values.dtype.kind == "f"
        else np.isnat(values)
        if values.dtype.kind == "M"
        else np.zeros(len(values), bool)
    )


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MAX_NAMES])
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"the column{'s' * (len(names) != 1)} {shown}{more}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def where_raised(error: BaseException) -> str:
    """Returns the module and function that raised: more telling than the type, without values."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    *folders, file = Path(frames[-1].filename).parts
    package = folders[folders.index("site-packages") + 1 :] if "site-packages" in folders else folders[-1:]
    return f"{'.'.join([*package, Path(file).stem])}.{frames[-1].name}"
