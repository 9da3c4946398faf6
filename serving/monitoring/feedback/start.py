"""Starts the keeper beside the service."""

import atexit
from collections.abc import Mapping
from pathlib import Path

import msgspec

from serving.monitoring.feedback.options import STORE_VARIABLE, Options
from serving.process.companion import Companion
from serving.settings import Settings

END_SECONDS = 5.0
"""Time for the last answers to reach the store; later ones get there at the next start."""


def start_feedback(
    run_directory: Path, model: str, settings: Settings, environment: Mapping[str, str]
) -> None:
    """Starts the keeper, which ends after this process.

    Args:
        run_directory: shared with the workers.
        model: name of the registered model.
        settings: of the service, with a prediction log and a store.
        environment: the keeper's variables.
    """
    assert settings.log_predictions is not None
    assert settings.feedback_store is not None
    options = msgspec.json.encode(
        Options.of(run_directory, settings.log_predictions, model, settings)
    ).decode()
    store = {STORE_VARIABLE: settings.feedback_store.get_secret_value()}
    companion = Companion("serving.monitoring.feedback", options, environment={**environment, **store})
    atexit.register(companion.close, END_SECONDS)
