"""Walks the parts of a fitted scikit-learn model, with the columns that each was fitted on."""

from collections.abc import Iterator
from typing import Any


def fitted_parts(model: Any, names: list[str]) -> Iterator[tuple[Any, list[str]]]:
    """Yields a model and its parts, outer parts first.

    Args:
        model: a pipeline, a search, an ensemble, … or any other object.
        names: the columns that it is called with.

    Yields:
        A part, and the names of its columns if they come from the model's input.
    """
    seen: set[int] = set()

    def look(part: Any, names: list[str]) -> Iterator[tuple[Any, list[str]]]:
        if id(part) in seen:
            return
        seen.add(id(part))
        names = [str(name) for name in getattr(part, "feature_names_in_", names)]
        yield part, names
        indices = getattr(part, "_transformer_to_input_indices", {})
        for name, step, *_ in getattr(part, "transformers_", ()):
            if hasattr(step, "get_params"):
                yield from look(step, [names[i] for i in indices.get(name, ()) if i < len(names)])
        for attribute, value in getattr(part, "__dict__", {}).items():
            # Fitted attributes end with "_"; a pipeline's steps are fitted in place.
            if attribute.endswith("_") or attribute in ("steps", "transformer_list", "estimator"):
                for child in _estimators(value):
                    yield from look(child, names)

    yield from look(model, names)


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
