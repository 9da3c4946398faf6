"""Nothing of ours reports to anybody: the libraries' own telemetry is off before they are imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environment import ROOT

SESSION = """
import onnxruntime
from onnx import TensorProto, helper
one, other = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [one], [other])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnxruntime.InferenceSession(model.SerializeToString())
"""


@pytest.mark.parametrize("first", ["serving", "service", "serving.prepare.__main__", "scripts.train"])
def test_onnxruntime_leaves_no_identifier_of_the_machine(first: str, tmp_path: Path):
    # It is silent in CI of its own accord, which is not what is tried here.
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    code = f"import {first}\n{SESSION}"
    env = kept | {"HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "bentoml"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, timeout=120, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))
