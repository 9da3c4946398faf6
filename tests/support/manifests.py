"""A manifest for tests to which most of it does not matter."""

from typing import Any

from serving.model.prepared import Manifest


def some_manifest(**fields: Any) -> Manifest:
    """Returns a manifest with these fields, and the rest of a native classifier's."""
    known: dict[str, Any] = {
        "name": "churn",
        "version": "3",
        "run_id": "r1",
        "source_key": "key",
        "digest": "d" * 64,
        "inputs": '[{"type": "double", "name": "a", "required": true}]',
        "outputs": None,
        "params": None,
        "nulls": {},
        "flavors": ["sklearn"],
        "task": "classification",
        "classes": ["no", "yes"],
        "has_probabilities": True,
        "runtime": "native",
        "native_reason": None,
        "native_steps": [],
        "parity": None,
        "native_seconds": 0.001,
        "is_rowwise": True,
        "is_per_row": True,
        "writers_code": None,
        "own_types": [],
        "preprocessing_sha256": None,
        "libraries": {"scikit-learn": "1.9.1"},
        "mlflow_version": "3.17.2",
        "pyfunc": "labels",
        "prepared_at": "2024-01-01T00:00:00+00:00",
    }
    return Manifest(**known | fields)
