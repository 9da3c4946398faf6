"""Warnings to the author of a model that would be served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.model.prepared import Manifest
from serving.model.schema import Column, Form, Schema

MAX_NAMES = 5
"""Maximum columns named in a sentence."""


def find_warnings(
    mlmodel: dict[str, Any], manifest: Manifest, schema: Schema, folder: Path, refused_nulls: dict[str, str]
) -> Iterator[str]:
    """Yields the warnings, one sentence each.

    Args:
        mlmodel: the contents of the model's MLmodel file.
        manifest: of the prepared model.
        schema: its inputs.
        folder: the model's files.
        refused_nulls: the error that null causes, by column.
    """
    if not mlmodel.get("saved_input_example_info") and not (folder / "reference.json").exists():
        yield (
            "it has no input example: it was tried on a row generated from its signature, and its documentation shows "
            "that row; log it with input_example=X.head(50)"
        )
    never_missing = [column for column in schema.columns if not column.may_be_missing]
    if schema.form is Form.RECORD and never_missing:
        yield (
            f"null is refused in {_names(never_missing)}: whole numbers and booleans cannot be missing; to allow it, "
            f'fit on X.astype({{"{never_missing[0].name}": "float64"}})'
        )
    for raises in dict.fromkeys(refused_nulls.values()):
        columns = [column for column in schema.columns if refused_nulls.get(column.name) == raises]
        yield (
            f"null in {_names(columns)} fits the signature, but the model refuses it: {raises}; impute it in the "
            "pipeline, or tell callers to send no null"
        )
    if manifest.writers_code is not None:
        what = manifest.writers_code.partition(";")[0]
        yield f"it {what}: loading it runs its author's code, which SERVING_ALLOW_PICKLE=true allows here"
    elif is_pickle(mlmodel):
        yield (
            "it is a pickle, as autolog() writes it: this service reads it as data, but other loaders run the code in "
            "it; log_model() writes skops, which contains no code"
        )


def is_pickle(mlmodel: dict[str, Any]) -> bool:
    """True if one of the flavors has its model in a pickle."""
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
