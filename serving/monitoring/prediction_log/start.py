"""Starts the prediction log beside the service."""

import atexit
import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from serving.monitoring.prediction_log.options import Options, socket_path
from serving.process.companion import Companion
from serving.process.control_sockets import MAX_PATH_BYTES
from serving.settings import Settings

log = logging.getLogger("serving.prediction_log")

END_SECONDS = 10.0
"""Time for the last rows to reach a Parquet file; later ones get there at the next start."""


def start_prediction_log(
    run_directory: Path, folder: Path, settings: Settings, environment: Mapping[str, str]
) -> None:
    """Starts the writer process, which ends after this one.

    Args:
        run_directory: shared with the workers.
        folder: of the log.
        settings: of the service.
        environment: the writer's variables.
    """
    if len(bytes(socket_path(run_directory))) > MAX_PATH_BYTES:
        log.error("no prediction log: the path of TMPDIR is too long for a socket; choose a shorter one")
        return
    options = msgspec.json.encode(Options.of(run_directory, folder, settings)).decode()
    companion = Companion("serving.monitoring.prediction_log", options, environment=environment)
    atexit.register(companion.close, END_SECONDS)
