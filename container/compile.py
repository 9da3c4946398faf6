"""Imports the service's modules, so that their bytecode is in the image: a read-only file system cannot store it later.

Compiling every file of every library would add 130 MB that is never loaded.
"""

import importlib

PROCESSES = (
    "bentoml_cli.cli",
    "_bentoml_impl.server.serving",
    "_bentoml_impl.worker.service",
    "service",
    "_bentoml_impl.loader",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
)
SERVING = (
    "serving.runtime.compiled",
    "serving.codecs.arrow",
    "serving.codecs.arrow_values",
    "serving.codecs.large_json",
    "serving.codecs.npy",
    "serving.http.compression",
    "serving.http.connection",
    "serving.http.cors",
    "serving.http.health",
    "serving.monitoring.prediction_log.__main__",
    "serving.monitoring.prediction_log.converter",
    "serving.monitoring.prediction_log.recorder",
    "serving.monitoring.prediction_log.start",
    "serving.monitoring.prediction_log.writer",
    "serving.prepare.sync",
    "pyarrow.compute",
    "pyarrow.ipc",
)
PREPARING = (
    "serving.prepare.__main__",
    "serving.prepare.build",
    "serving.prepare.registry.artifacts",
    "serving.prepare.registry.client",
    "mlflow.sklearn",
    "sklearn.ensemble",
    "sklearn.pipeline",
    "skops.io",
    "onnx",
    "boto3",
    "s3transfer",
)
ABSENT = {"boto3", "joblib", "mlflow", "sklearn", "skops", "onnx", "pandas", "s3transfer"}
"""Libraries missing from a sealed image of a compiled model."""

for name in (*PROCESSES, *SERVING):
    importlib.import_module(name)
for name in PREPARING:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ABSENT:
            raise
