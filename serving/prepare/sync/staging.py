"""Staging: every worker loads a model beside the one that answers, and says so, before it takes a role."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from serving.errors import ModelRefused, PrepareError
from serving.model.state import read_reports

LOOK_SECONDS = 0.02
"""Between two looks at what the workers report."""


class Superseded(PrepareError):
    """Meanwhile the registry names another version, which may be prepared already: that comes first."""


class WorkerEnded(PrepareError):
    """A worker ended while it loaded a model: perhaps because of that, perhaps not."""

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
        is_superseded: asked all the time; ends it, too.

    Raises:
        ModelRefused: a worker could not.
        Superseded: it is not wanted any more.
        PrepareError: a worker ended, or took too long.
    """
    while not stop.wait(LOOK_SECONDS):
        reports = read_reports(run_directory)
        for report in reports.values():
            if tag in report.broken:
                raise ModelRefused(f"{tag} passed the gate, and in a worker it {report.broken[tag]}")
        if answering - set(reports):
            raise WorkerEnded(
                f"a worker ended while {tag} was loaded; see its last lines in the log, and give it more memory if "
                "they say nothing"
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
