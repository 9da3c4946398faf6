"""One attempt: writes its outcome as JSON to the file OUTCOME.

python -m serving.prepare OUTCOME            # asks the registry which version to serve
python -m serving.prepare OUTCOME REQUEST    # prepares a version (JSON of `serving.prepare.request`)
"""

import logging
import os
import sys
import warnings
from pathlib import Path

import msgspec

from serving.errors import PrepareError
from serving.prepare.registry.access import bounds, log_in
from serving.prepare.request import Outcome, PrepareRequest, write_outcome
from serving.process.child import end_with_parent, lower_priority
from serving.process.logs import configure_logging
from serving.process.memory import limit_memory
from serving.settings import Settings, load_settings

log = logging.getLogger("serving.prepare")


def main(outcome_file: Path, request: str | None = None) -> int:
    """Runs the attempt and returns the exit status."""
    settings = load_settings()
    configure_logging(settings.log_format)
    end_with_parent()
    lower_priority()
    limit_memory(settings.prepare_memory_mb)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    warnings.simplefilter("ignore")
    parsed = None if request is None else msgspec.json.decode(request, type=PrepareRequest)
    try:
        os.environ.update(bounds(settings) | log_in(settings))
        outcome = carry_out(parsed, settings)
    except PrepareError as error:  # the token is missing
        outcome = Outcome(code=error.code, message=str(error))
    write_outcome(outcome_file, outcome)
    return 1 if outcome.code else 0


def carry_out(request: PrepareRequest | None, settings: Settings) -> Outcome:
    """Asks the registry, or prepares a version; turns every exception into an outcome."""
    try:
        if request is None:
            from serving.prepare.registry.client import resolve

            return Outcome(wanted=resolve(settings))
        from serving.prepare.build import prepare

        return Outcome(tag=prepare(request.resolved, settings, request.champion).tag)
    except PrepareError as error:
        return Outcome(code=error.code, message=str(error))
    except Exception as error:
        log.exception("preparing failed")
        message = f"preparing failed with {type(error).__name__}, which is a mistake of the service; the log has the trace"
        return Outcome(code="internal_error", message=message)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
