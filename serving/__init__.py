"""Serves a model of an MLflow registry through BentoML; `service.py` wires it together."""

import os
import sys

# Telemetry is opt-in. These libraries read the variables when they are imported or first used, which is later. ONNX
# Runtime also writes a machine identifier into the home folder.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# `bentoml serve` reads the variable before it imports a service, and caches the result.
_usage = sys.modules.get("bentoml._internal.utils.analytics.usage_stats")
if _usage is not None:
    _usage.do_not_track.cache_clear()
