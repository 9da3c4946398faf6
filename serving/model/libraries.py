"""The library versions that a model is prepared with; a prepared model is valid for these only."""

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "mlflow-skinny",
    "scikit-learn",
    "numpy",
    "onnxruntime",
    "pandas",
    "skops",
    "xgboost",
    "xgboost-cpu",
    "lightgbm",
)

COMPILER = ("runtime", "prepare")
"""The folders of this package whose code determines a prepared model."""


@functools.cache
def library_versions() -> dict[str, str]:
    """Returns the installed library versions, and a hash of the compiler's code."""
    out = {}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    code = hashlib.sha256()
    here = Path(__file__).resolve().parents[1]
    for file in sorted(file for folder in COMPILER for file in (here / folder).rglob("*.py")):
        code.update(file.read_bytes())
    return out | {"compiler": code.hexdigest()[:12]}
