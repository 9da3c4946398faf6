"""The parts of a fitted model of scikit-learn's kind, with the columns that each was fitted on."""

from collections.abc import Iterator
from typing import Any

Names = list[str] | None


def fitted_parts(model: Any, names: Names) -> Iterator[tuple[Any, Names]]:
    """Yields a model and what it is made of, outer parts first.

    Args:
        model: a pipeline, a search, an ensemble, … or any other object.
        names: the columns that it was fitted on; None where they are not known.

    Yields:
        A part, and the names of its columns as far as they are the model's own.
    """
    seen: set[int] = set()

    def look(part: Any, names: Names) -> Iterator[tuple[Any, Names]]:
        if id(part) in seen:
            return
        seen.add(id(part))
        own = getattr(part, "feature_names_in_", None)
        names = [str(name) for name in own] if own is not None else names
        yield part, names
        for _, step, columns in _branches(part):
            yield from look(step, _choose(names, columns))
        for name, value in getattr(part, "__dict__", {}).items():
            # What a fit has made ends with "_"; a pipeline's steps are fitted where they are.
            if name.endswith("_") or name in ("steps", "transformer_list", "estimator"):
                for child in _estimators(value):
                    yield from look(child, names)

    yield from look(model, names)


def _branches(part: Any) -> list[tuple[str, Any, Any]]:
    return [branch for branch in getattr(part, "transformers_", ()) if hasattr(branch[1], "get_params")]


def _choose(names: Names, columns: Any) -> Names:
    """The names of the columns of a ColumnTransformer's branch."""
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice):
        return names[columns] if names is not None and isinstance(columns.start or 0, int) else None
    columns = columns.tolist() if hasattr(columns, "tolist") else columns
    chosen = list(columns) if isinstance(columns, (list, tuple)) else [columns]
    if all(isinstance(column, str) for column in chosen):
        return chosen
    if names is None:
        return None
    if all(isinstance(column, bool) for column in chosen):
        return [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    try:
        return [names[column] for column in chosen]
    except (TypeError, IndexError):
        return None


def _estimators(value: Any) -> Iterator[Any]:
    """The estimators in an attribute: itself, or in lists, tuples and dictionaries."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _estimators(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _estimators(item)
    elif hasattr(value, "estimator"):  # scikit-learn's calibrated classifiers
        yield from _estimators(value.estimator)
