"""`python -m serving.prepare OUTCOME`: one attempt; writes what came of it as JSON into the file OUTCOME."""

import logging
import os
import sys
import warnings
from pathlib import Path

from serving.errors import PrepareError
from serving.logs import configure_logging
from serving.prepare.sync import Outcome, write_outcome
from serving.settings import load_settings

log = logging.getLogger("serving.prepare")


def main(outcome_file: Path) -> int:
    """Prepares the version to be served; returns the exit status."""
    configure_logging()
    settings = load_settings()
    # MLflow's own defaults are 120 seconds and 7 retries: minutes of silence in front of a dead server.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(settings.registry_timeout_seconds))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    warnings.simplefilter("ignore")

    from serving.prepare.build import prepare

    try:
        prepared = prepare(settings)
    except PrepareError as error:
        write_outcome(outcome_file, Outcome(code=error.code, message=str(error)))
        return 1
    except Exception as error:
        log.exception("preparing failed")
        message = f"preparing failed with {type(error).__name__}; the log has the trace"
        write_outcome(outcome_file, Outcome(code="internal_error", message=message))
        return 1
    write_outcome(outcome_file, Outcome(tag=prepared.tag))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
