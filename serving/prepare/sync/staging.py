"""Staging: every worker loads a model beside the current one, and reports it, before the model takes a role."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from serving.errors import ModelRefused, PrepareError
from serving.model.state import read_reports

LOOK_SECONDS = 0.02
"""Interval between checks of the workers' reports."""


class Superseded(PrepareError):
    """The registry now names another version, which comes first and may be prepared already."""


class WorkerEnded(PrepareError):
    """A worker ended while it loaded a model, which may or may not be the cause."""

    final_after = 2


def answering_workers(run_directory: Path) -> set[int]:
    """Returns the processes that answer requests."""
    return {pid for pid, report in read_reports(run_directory).items() if report.serving}


def wait_loaded(
    run_directory: Path,
    tag: str,
    answering: set[int],
    *,
    until: float,
    stop: threading.Event,
    is_superseded: Callable[[], bool],
) -> None:
    """Waits until all workers have loaded a model that the state names, or until `stop`.

    Args:
        run_directory: of the service.
        tag: of the model.
        answering: the processes that answered before.
        until: when to give up, by the monotonic clock.
        stop: ends the wait.
        is_superseded: called repeatedly; True ends the wait.

    Raises:
        ModelRefused: a worker could not load it.
        Superseded: the registry now names another version.
        PrepareError: a worker ended, or took too long.
    """
    while not stop.wait(LOOK_SECONDS):
        reports = read_reports(run_directory)
        for report in reports.values():
            if tag in report.broken:
                raise ModelRefused(f"{tag} passed the gate, but in a worker it {report.broken[tag]}")
        if answering - set(reports):
            raise WorkerEnded(
                f"a worker ended while {tag} was loaded; see its last lines in the log, and give it more memory if "
                "they show no error"
            )
        if all(tag in report.loaded for report in reports.values()):
            return
        if is_superseded():
            raise Superseded(f"the registry named another version while {tag} was loaded")
        if time.monotonic() > until:
            raise PrepareError(
                f"the workers did not load {tag} in time (SERVING_PREPARE_TIMEOUT_SECONDS); give them more time or "
                "processors"
            )
