"""Versions that bring code of their own under the same names, loaded into one process."""

import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.models import infer_signature

from serving.model.schema import Inputs, parse_schema
from serving.runtime.native import load_native
from serving.runtime.trusted import Trust

STEP = """
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

class Times(RegressorMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = 1
        return self

    def predict(self, X):
        return np.asarray(X)[:, 0] * {factor}
"""


def save(folder: Path, factor: int, serialization_format: str) -> Path:
    """Saves a model whose class is in a module `own_steps` of its own, as training elsewhere would."""
    code = folder / "training" / "own_steps.py"
    code.parent.mkdir(parents=True)
    code.write_text(STEP.format(factor=factor))
    sys.modules.pop("own_steps", None)
    sys.path.insert(0, str(code.parent))
    try:
        from own_steps import Times  # type: ignore[import-not-found]  # written just now

        rows = np.array([[1.0], [2.0]])
        mlflow.sklearn.save_model(
            Times().fit(rows),
            folder / "mlflow",
            code_paths=[str(code)],
            signature=infer_signature(rows, rows[:, 0]),
            pip_requirements=["scikit-learn"],
            serialization_format=serialization_format,
            skops_trusted_types=["own_steps.Times"],
        )
    finally:
        sys.path.remove(str(code.parent))
        sys.modules.pop("own_steps", None)
    return folder / "mlflow"


OWN = Trust(frozenset({"own_steps.Times"}))


@pytest.mark.parametrize(
    ("serialization_format", "trust"), [("skops", OWN), ("cloudpickle", OWN), ("cloudpickle", None)]
)
def test_each_version_runs_its_own_code(
    tmp_path: Path, serialization_format: str, trust: Trust | None
) -> None:
    folders = [save(tmp_path / str(factor), factor, serialization_format) for factor in (2, 200)]
    schema = parse_schema('[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 1]}}]')
    inputs = Inputs((np.array([[1.0]]),), 1)

    def ask(runtime: Any) -> float:
        return float(runtime.predict(inputs, {}).values[0])

    path = list(sys.path)
    first = load_native(folders[0], schema, trust)
    second = load_native(folders[1], schema, trust)
    again = load_native(folders[0], schema, trust)
    try:
        assert [ask(first), ask(second), ask(again)] == [2, 200, 2]
        assert len(sys.path) <= len(path) + 1, "every load makes the path longer"
    finally:
        sys.path[:] = path
        sys.modules.pop("own_steps", None)
