"""What a model is prepared with: a prepared model is good for these versions only."""

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
"""The folders of this package whose code decides what a prepared model is."""


@functools.cache
def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that are installed, and a hash of the code that compiles."""
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
