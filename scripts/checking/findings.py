"""What its writer should know of a model that is served all the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.model.prepared import Manifest
from serving.model.schema import Column, Form, Schema

MAX_NAMES = 5
"""Columns that are named in a sentence."""


def find_warnings(
    mlmodel: dict[str, Any], manifest: Manifest, schema: Schema, folder: Path, refused_nulls: dict[str, str]
) -> Iterator[str]:
    """Yields a sentence for each.

    Args:
        mlmodel: what the model's MLmodel file says.
        manifest: of the prepared model.
        schema: its inputs.
        folder: the model's files.
        refused_nulls: what raises what on null, by column.
    """
    if not mlmodel.get("saved_input_example_info") and not (folder / "reference.json").exists():
        yield (
            "it has no input example: it was tried on a row that is made up from its signature, and its documentation "
            "shows that row; log it with input_example=X.head(50)"
        )
    never_missing = [column for column in schema.columns if not column.may_be_missing]
    if schema.form is Form.RECORD and never_missing:
        yield (
            f"null is refused in {_names(never_missing)}: whole numbers and booleans cannot be missing; if they may be, "
            f'fit it on X.astype({{"{never_missing[0].name}": "float64"}})'
        )
    for raises in dict.fromkeys(refused_nulls.values()):
        columns = [column for column in schema.columns if refused_nulls.get(column.name) == raises]
        yield (
            f"null in {_names(columns)} fits the signature, and is refused by the model: {raises}; impute it in the "
            "pipeline, or have callers send no null"
        )
    if manifest.writers_code is not None:
        what = manifest.writers_code.partition(";")[0]
        yield f"it {what}: loading it runs code that its writer chose, which SERVING_ALLOW_PICKLE=true allows here"
    elif is_pickle(mlmodel):
        yield (
            "it is a pickle, as autolog() writes it: this service reads it as data, but whoever loads it otherwise runs "
            "what is in it; log_model() writes skops, which holds no code"
        )


def is_pickle(mlmodel: dict[str, Any]) -> bool:
    """Whether one of the flavors has its model in a pickle."""
    formats = [
        str(flavor.get("serialization_format", ""))
        for flavor in mlmodel["flavors"].values()
        if isinstance(flavor, dict)
    ]
    return any("pickle" in form for form in formats)


def _names(columns: list[Column]) -> str:
    shown = ", ".join(f"{column.name!r} ({column.type})" for column in columns[:MAX_NAMES])
    more = len(columns) - MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
