"""Serves a model of an MLflow registry through BentoML; `service.py` wires it together."""

import os
import sys

# Nothing leaves the machine unless somebody asks for it: these libraries send reports of their use. They look at the
# variables as they are imported or first used, which is after this. ONNX Runtime also leaves an identifier of the
# machine in the home folder.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# `bentoml serve` asks once before it imports a service, and keeps the answer.
_usage = sys.modules.get("bentoml._internal.utils.analytics.usage_stats")
if _usage is not None:
    _usage.do_not_track.cache_clear()
